//! The `BizraNode`s that Networks and pools control, and images.

use std::collections::BTreeMap;

use kube::{Resource, api::ObjectMeta};

use super::{controlled_by, labels, pod, revision};
use crate::api::{
    BizraNode, BizraNodeSpec, ImageSpec, Network, NetworkReference, NodePool, NodeTemplate, Reconciliation, Signing,
};

/// A genesis validator of a network.
pub fn validator(
    network: &Network,
    network_name: &str,
    namespace: &str,
    name: &str,
    template: NodeTemplate,
    default_image: &ImageSpec,
) -> Result<BizraNode, serde_json::Error> {
    let mut all_labels = labels::of_node(network_name, name);
    all_labels.insert(labels::COMPONENT.to_owned(), labels::Component::Validator.label().to_owned());
    let network_ref = NetworkReference { name: network_name.to_owned() };
    controlled(network, all_labels, network_ref, (namespace, name), template, default_image)
}

/// A full node of a pool.
pub fn member(
    pool: &NodePool,
    pool_name: &str,
    namespace: &str,
    name: &str,
    template: NodeTemplate,
    default_image: &ImageSpec,
) -> Result<BizraNode, serde_json::Error> {
    let network_ref = pool.spec.network_ref.clone();
    let mut all_labels = labels::of_node(&network_ref.name, name);
    all_labels.insert(labels::COMPONENT.to_owned(), labels::Component::FullNode.label().to_owned());
    all_labels.insert(labels::POOL.to_owned(), pool_name.to_owned());
    controlled(pool, all_labels, network_ref, (namespace, name), template, default_image)
}

fn controlled<K: Resource<DynamicType = ()>>(
    owner: &K,
    all_labels: BTreeMap<String, String>,
    network_ref: NetworkReference,
    (namespace, name): (&str, &str),
    template: NodeTemplate,
    default_image: &ImageSpec,
) -> Result<BizraNode, serde_json::Error> {
    let revision = revision::of_template(&template)?;
    Ok(BizraNode {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(all_labels),
            annotations: Some(
                [
                    (labels::TEMPLATE_REVISION.to_owned(), revision),
                    (labels::DEFAULT_IMAGE.to_owned(), image_reference(default_image)),
                ]
                .into(),
            ),
            owner_references: Some(vec![controlled_by(owner)]),
            ..ObjectMeta::default()
        },
        spec: BizraNodeSpec {
            network_ref,
            // Defaults are left out of what is applied: whoever orders otherwise for one node keeps the say.
            reconciliation: Reconciliation::default(),
            signing: Signing::default(),
            template,
        },
        status: None,
    })
}

/// The image of those that name none, by the nodes that are there already; of nodes made before that was noted, their own.
pub fn settled_image<'a>(nodes: impl Iterator<Item = &'a BizraNode> + Clone) -> Option<ImageSpec> {
    let noted = nodes.clone().find_map(|node| pod::annotation(&node.metadata, labels::DEFAULT_IMAGE));
    let mut own = nodes.map(|node| &node.spec.template.image);
    noted.map(parse_image).or_else(|| own.find(|image| image.repository.is_some()).cloned())
}

/// The template a Network's spec asks for, with a complete image.
pub fn template(network: &Network, default_image: &ImageSpec) -> NodeTemplate {
    let template = &network.spec.template;
    NodeTemplate { image: complete_image(&template.image, default_image), ..template.clone() }
}

/// Splits an image reference into an [`ImageSpec`].
pub fn parse_image(reference: &str) -> ImageSpec {
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.to_owned())),
        None => (reference, None),
    };
    // A colon before the last slash separates a port, not a tag.
    let (repository, tag) = match rest.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag.to_owned())),
        _ => (rest, None),
    };
    let tag = if digest.is_some() { None } else { Some(tag.unwrap_or_else(|| "latest".to_owned())) };
    ImageSpec { repository: Some(repository.to_owned()), tag, digest, ..ImageSpec::default() }
}

/// Fills what an [`ImageSpec`] leaves out from another one.
pub fn complete_image(image: &ImageSpec, default: &ImageSpec) -> ImageSpec {
    let versioned = image.tag.is_some() || image.digest.is_some();
    ImageSpec {
        repository: image.repository.clone().or_else(|| default.repository.clone()),
        tag: if versioned { image.tag.clone() } else { default.tag.clone() },
        digest: if versioned { image.digest.clone() } else { default.digest.clone() },
        pull_policy: image.pull_policy,
    }
}

/// The reference a container names.
pub fn image_reference(image: &ImageSpec) -> String {
    let repository = image.repository.as_deref().unwrap_or_default();
    match (&image.digest, &image.tag) {
        (Some(digest), _) => format!("{repository}@{digest}"),
        (None, Some(tag)) => format!("{repository}:{tag}"),
        (None, None) => repository.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_references_survive_a_round_trip() {
        for reference in ["localhost/bizra:dev", "localhost:5000/a/b:1.2.3", "example.test/x@sha256:ab"] {
            assert_eq!(image_reference(&parse_image(reference)), reference);
        }
        assert_eq!(image_reference(&parse_image("localhost:5000/a")), "localhost:5000/a:latest");
    }

    #[test]
    fn a_tag_alone_keeps_the_default_repository() {
        let default = parse_image("localhost/bizra@sha256:ab");
        let image = complete_image(&ImageSpec { tag: Some("2".to_owned()), ..ImageSpec::default() }, &default);
        assert_eq!(image_reference(&image), "localhost/bizra:2");
    }
}
