//! The two Services of a network.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::{controlled_by, labels, names};
use crate::api::{Network, ServiceType};

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}

/// The headless Service that gives every node its host name. It publishes addresses that are not ready: validators
/// must find each other to become ready.
pub fn nodes(network: &Network, name: &str, namespace: &str) -> Service {
    Service {
        metadata: ObjectMeta {
            name: Some(names::nodes_service(name)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels::of_network(name)),
            owner_references: Some(vec![controlled_by(network)]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(labels::selector(name)),
            ports: Some(vec![
                port("peer", bizra_proto::port::PEER),
                port("grpc", bizra_proto::port::GRPC),
                port("http", bizra_proto::port::HTTP),
                port("admin", bizra_proto::port::ADMIN),
                port("monitoring", bizra_proto::port::MONITORING),
            ]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The Service for clients: any ready node of the network.
pub fn api(network: &Network, name: &str, namespace: &str) -> Service {
    let service = &network.spec.service;
    Service {
        metadata: ObjectMeta {
            name: Some(names::api_service(name)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels::of_network(name)),
            annotations: (!service.annotations.is_empty()).then(|| service.annotations.clone()),
            owner_references: Some(vec![controlled_by(network)]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some(
                match service.type_ {
                    ServiceType::ClusterIP => "ClusterIP",
                    ServiceType::NodePort => "NodePort",
                    ServiceType::LoadBalancer => "LoadBalancer",
                }
                .to_owned(),
            ),
            selector: Some(labels::selector(name)),
            ports: Some(vec![port("grpc", bizra_proto::port::GRPC), port("http", bizra_proto::port::HTTP)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
