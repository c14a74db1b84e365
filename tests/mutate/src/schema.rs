//! The leaves of the generated schemas: every field of a spec that holds a value, and every list.

use std::fmt;

use bizra_operator::api::definitions;
use serde_json::Value;

/// A step on the way to a leaf.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// A property.
    Field(String),
    /// The first item of a list.
    Item,
}

/// What a leaf holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Text,
    Integer,
    /// A map of texts or quantities by name.
    Map,
    /// A list of texts or of objects. The fields of its objects are leaves of their own.
    List,
}

/// A field of a spec.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// Kind of the object.
    pub(crate) kind: String,
    pub(crate) path: Vec<Step>,
    pub(crate) shape: Shape,
    /// Its schema as it stands in the definition: format, length, pattern, default.
    pub(crate) schema: Value,
    /// The values of an enum.
    pub(crate) choices: Vec<String>,
    /// Bounds of an integer, from the schema or from a rule on it.
    pub(crate) minimum: Option<i64>,
    pub(crate) maximum: Option<i64>,
    /// Bounds of a text's length, or of the number of entries.
    pub(crate) shortest: u64,
    pub(crate) longest: u64,
    /// CEL rules on it, and those of what holds it that name it. Some compare with the former value.
    pub(crate) rules: Vec<String>,
}

impl Leaf {
    /// Its place as the API server writes it, without indices: `spec.image.tag`.
    pub(crate) fn place(&self) -> String {
        let mut place = "spec".to_owned();
        for step in &self.path {
            match step {
                Step::Field(name) => {
                    place.push('.');
                    place.push_str(name);
                }
                Step::Item => place.push_str("[]"),
            }
        }
        place
    }

    /// Name of the field; of a list's item, the list's.
    pub(crate) fn name(&self) -> &str {
        let mut names = self.path.iter().rev().filter_map(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            Step::Item => None,
        });
        names.next().unwrap_or_default()
    }

    /// Name of the field of the spec it is, or is part of.
    pub(crate) fn top(&self) -> &str {
        match self.path.first() {
            Some(Step::Field(name)) => name,
            _ => "",
        }
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind, self.place())
    }
}

/// The schema of each kind's spec, as it is installed.
pub(crate) fn specs() -> Vec<(String, Value)> {
    let definitions = definitions().expect("the definitions can be written as JSON");
    let spec = |definition| {
        let definition = serde_json::to_value(definition).expect("a definition is JSON");
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
        (kind, definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone())
    };
    definitions.into_iter().map(spec).collect()
}

/// The leaves of a kind, in the order of the schema.
pub(crate) fn leaves(kind: &str, spec: &Value) -> Vec<Leaf> {
    let mut found = Vec::new();
    walk(kind, spec, &mut Vec::new(), &[], &mut found);
    found
}

fn walk(kind: &str, schema: &Value, path: &mut Vec<Step>, above: &[String], found: &mut Vec<Leaf>) {
    let own = rules(schema);
    if let Some(properties) = schema["properties"].as_object() {
        for (name, inner) in properties {
            let naming = own.iter().filter(|rule| names(rule, name));
            let naming: Vec<String> = above.iter().chain(naming).cloned().collect();
            path.push(Step::Field(name.clone()));
            walk(kind, inner, path, &naming, found);
            path.pop();
        }
        return;
    }
    let shape = match schema["type"].as_str() {
        Some("object") => Shape::Map,
        Some("array") => Shape::List,
        Some("integer") => Shape::Integer,
        _ => Shape::Text,
    };
    let rules: Vec<String> = above.iter().cloned().chain(own).collect();
    let limit = |key: &str, sign: &str| {
        // The generated schemas write their bounds as floating-point numbers.
        let of_schema = schema[key].as_f64().map(|bound| bound as i64);
        of_schema.or_else(|| rules.iter().find_map(|rule| rule.strip_prefix(&format!("self {sign} "))?.parse().ok()))
    };
    let (least, most) = match shape {
        Shape::Map => ("minProperties", "maxProperties"),
        Shape::List => ("minItems", "maxItems"),
        Shape::Text | Shape::Integer => ("minLength", "maxLength"),
    };
    found.push(Leaf {
        kind: kind.to_owned(),
        path: path.clone(),
        shape,
        choices: texts(&schema["enum"]),
        minimum: limit("minimum", ">="),
        maximum: limit("maximum", "<="),
        shortest: schema[least].as_u64().unwrap_or(0),
        longest: schema[most].as_u64().unwrap_or(64),
        schema: schema.clone(),
        rules,
    });
    if shape == Shape::List && schema["items"]["properties"].is_object() {
        path.push(Step::Item);
        walk(kind, &schema["items"], path, above, found);
        path.pop();
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn rules(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    rules.filter_map(|rule| rule["rule"].as_str()).map(str::to_owned).collect()
}

/// True if a rule of an object speaks of its field of this name.
fn names(rule: &str, field: &str) -> bool {
    let is_end = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_');
    ["self.", "oldSelf."].iter().any(|prefix| {
        let wanted = format!("{prefix}{field}");
        rule.match_indices(&wanted).any(|(at, _)| is_end(&rule[at + wanted.len()..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Leaf> {
        specs().iter().flat_map(|(kind, spec)| leaves(kind, spec)).collect()
    }

    fn leaf(name: &str) -> Leaf {
        all().into_iter().find(|leaf| leaf.to_string() == name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    #[test]
    fn every_scalar_of_every_kind_is_a_leaf_or_in_one() {
        fn scalars(schema: &Value) -> usize {
            let of = |key: &str| schema[key].as_object().into_iter().flatten().map(|(_, inner)| scalars(inner)).sum();
            match schema["type"].as_str() {
                Some("object") if schema["properties"].is_object() => of("properties"),
                Some("array") => scalars(&schema["items"]),
                _ => 1,
            }
        }
        for (kind, spec) in specs() {
            let leaves = leaves(&kind, &spec);
            let holders = leaves.iter().filter(|leaf| leaf.schema["items"]["properties"].is_object()).count();
            assert_eq!(leaves.len() - holders, scalars(&spec), "{kind}");
        }
    }

    #[test]
    fn a_leaf_knows_its_bounds_and_the_rules_that_name_it() {
        let deadline = leaf("Network spec.updateDeadlineSeconds");
        assert_eq!((deadline.minimum, deadline.maximum), (Some(10), Some(86_400)));
        assert_eq!((deadline.shape, deadline.rules.len()), (Shape::Integer, 0));
        let replicas = leaf("NodePool spec.replicas");
        assert_eq!((replicas.minimum, replicas.maximum), (Some(0), Some(100)), "from its rules");
        let chain = leaf("Network spec.chainId");
        assert_eq!((chain.shortest, chain.longest), (1, 32));
        assert_eq!(chain.rules, ["self.chainId == oldSelf.chainId"]);
        assert_eq!(leaf("Network spec.hostSpread").choices, ["Required", "Preferred"]);
        assert!(leaf("BizraNode spec.networkRef.name").rules.iter().any(|rule| rule.contains("oldSelf")));
        let account = leaf("Network spec.genesis.accounts[].balance");
        assert_eq!((account.name(), account.top(), account.path.contains(&Step::Item)), ("balance", "genesis", true));
        assert!(!names("self.sizes == 1", "size") && names("has(self.size)", "size"));
    }
}
