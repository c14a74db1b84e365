//! What is written into a leaf: nothing, what is sound, what is at a bound or beyond it, what is hostile, what is of another type.

use serde_json::{Map, Value, json};

use crate::schema::{Leaf, Shape, Step};

/// What a value is meant to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sort {
    /// The field is not there, or null.
    Absent,
    /// Accepted by everybody.
    Sound,
    /// At a bound, or one beyond it; lists and maps with no, one, many and too many entries.
    Boundary,
    /// What breaks parsers, names, quantities, paths and files.
    Hostile,
    /// Another JSON type.
    Type,
}

/// All sorts, in the order in which they are dealt.
pub(crate) const SORTS: [Sort; 5] = [Sort::Sound, Sort::Hostile, Sort::Absent, Sort::Boundary, Sort::Type];

/// A value for a leaf; none takes the field away.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) sort: Sort,
    pub(crate) value: Option<Value>,
}

/// Texts that mean something to somebody further down.
const HOSTILE: [&str; 18] = [
    "../../../etc/passwd",
    "kube-system",
    "kube-system/default",
    "\u{202e}\u{1f4a5}\u{e9}\u{fffd}\u{200b}",
    "nul\u{0}bell\u{7}escape\u{1b}[31m",
    "line\nsigning = \"fenced\"\n[tls]\nca_file = \"/tmp/x\"",
    "\"'`\\\" # ''' \"\"\"",
    "{a: &x [*x], <<: *x}\n---\n- !!binary x",
    " leading and trailing ",
    "$(NODE_NAME)${HOME}{{ .Values.x }}",
    "UPPER/Case:tag@sha256:zz",
    "registry.example.com:99999//a/../b",
    "-1",
    "1e999Gi",
    "0x10",
    "NaN",
    "10 GB",
    "999999999999999999P",
];

/// Names and values of entries that the API server, the kubelet or the operator itself has something to say about.
const HOSTILE_ENTRIES: [(&str, &str); 16] = [
    ("", "empty"),
    ("a/b/c", "x"),
    ("-a", "x"),
    ("example.com/", "x"),
    ("\u{e9}\u{1f4a5}", "x"),
    ("example.com/key", "line\nbreak"),
    ("example.com/key", "nul\u{0}"),
    ("example.com/key", " blank "),
    ("bizra.io/revision", "stolen"),
    ("bizra.io/network", "canary"),
    ("app.kubernetes.io/name", "other"),
    ("kubernetes.io/hostname", "../.."),
    ("kubectl.kubernetes.io/last-applied-configuration", "{"),
    ("seccomp.security.alpha.kubernetes.io/pod", "localhost/../../x"),
    ("container.apparmor.security.beta.kubernetes.io/node", "localhost/../x"),
    ("service.kubernetes.io/topology-mode", "\"x\""),
];

/// Quantities of resources, as text or as a number; the schema takes both.
fn hostile_quantities() -> Vec<Value> {
    vec![
        json!({"cpu": 1}),
        json!({"memory": 1_073_741_824}),
        json!({"cpu": "-1"}),
        json!({"memory": "0"}),
        json!({"memory": "1e999"}),
        json!({"memory": "many"}),
        json!({"cpu": "1n", "memory": "1"}),
        json!({"memory": "9999999999999999Ei"}),
        json!({"": "1"}),
        json!({"a/b/c": "1"}),
        json!({"example.com/gpu": "1500m"}),
        json!({"hugepages-2Mi": "1Mi"}),
        json!({"cpu": "0.0000000001"}),
        json!({"cpu": ""}),
    ]
}

/// Everything that is tried on a leaf, a pile of each sort.
pub(crate) fn candidates(leaf: &Leaf) -> Vec<Vec<Candidate>> {
    let pile = |sort: Sort| -> Vec<Candidate> {
        of_sort(leaf, sort).into_iter().map(|value| Candidate { sort, value }).collect()
    };
    SORTS.map(pile).into()
}

fn of_sort(leaf: &Leaf, sort: Sort) -> Vec<Option<Value>> {
    let given = |values: Vec<Value>| values.into_iter().map(Some).collect();
    match sort {
        Sort::Absent => vec![None, Some(Value::Null)],
        Sort::Sound => {
            let mut values = vec![sound(&leaf.path, &leaf.schema)];
            values.extend(
                leaf.choices
                    .iter()
                    .map(|choice| json!(choice))
                    .filter(|choice| *choice != values[0])
                    .collect::<Vec<_>>(),
            );
            // The other one first: the default changes nothing.
            values.reverse();
            given(values)
        }
        Sort::Boundary => given(at_bounds(leaf)),
        Sort::Hostile => given(hostile(leaf)),
        Sort::Type => given(match leaf.shape {
            Shape::Text => vec![json!(7), json!(true), json!(["x"]), json!({"x": "y"})],
            Shape::Integer => vec![json!("7"), json!(1.5), json!([1]), json!({})],
            Shape::Map => vec![json!([]), json!("x"), json!({"example.com/key": {"x": 1}}), json!(1)],
            Shape::List => vec![json!({}), json!("x"), json!([[]]), json!(1)],
        }),
    }
}

fn at_bounds(leaf: &Leaf) -> Vec<Value> {
    match leaf.shape {
        Shape::Integer => {
            let (least, most) = (leaf.minimum, leaf.maximum);
            // A hundred nodes are allowed and would be a hundred nodes.
            let most = most.filter(|most| leaf.name() != "replicas" || *most < 10);
            let bounds = [least, least.map(|least| least - 1), most, leaf.maximum.map(|most| most + 1)];
            let far =
                [0, -1, i64::from(i32::MAX), i64::from(i32::MAX) + 1, i64::from(i32::MIN) - 1, i64::MAX, i64::MIN];
            let mut values: Vec<i64> = bounds.into_iter().flatten().chain(far).collect();
            let mut seen = Vec::new();
            values.retain(|value| {
                !seen.contains(value) && {
                    seen.push(*value);
                    true
                }
            });
            values.into_iter().map(|value| json!(value)).chain([json!(u64::MAX)]).collect()
        }
        Shape::Text => {
            let filled = |length: u64| {
                let sound = sound(&leaf.path, &leaf.schema);
                let sound = sound.as_str().unwrap_or("a");
                let filler = sound.chars().find(char::is_ascii_alphanumeric).unwrap_or('a').to_string();
                json!(filler.repeat(usize::try_from(length).unwrap_or(0)))
            };
            [leaf.longest, leaf.longest + 1, leaf.shortest, leaf.shortest.saturating_sub(1), 100_000].map(filled).into()
        }
        Shape::Map => {
            let entries = |count: u64| {
                let value = if holds_quantities(leaf) { "1" } else { "x" };
                Value::Object((0..count).map(|number| (format!("example.com/k{number}"), json!(value))).collect())
            };
            let mut values = [0, 1, leaf.longest, leaf.longest + 1].map(entries).to_vec();
            for length in [63, 64, 1024, 1025] {
                values.push(json!({"example.com/key": "x".repeat(length)}));
                values.push(json!({"x".repeat(length): "x"}));
            }
            values
        }
        Shape::List => {
            let entry = entry(leaf);
            let several = |count: u64| Value::Array((0..count).map(|number| distinct(&entry, number)).collect());
            let mut values = [0, 1, 10, leaf.longest, leaf.longest + 1].map(several).to_vec();
            values.insert(2, json!([entry, entry]));
            values
        }
    }
}

fn hostile(leaf: &Leaf) -> Vec<Value> {
    match leaf.shape {
        Shape::Text => [json!("")].into_iter().chain(HOSTILE.map(|text| json!(text))).collect(),
        Shape::Integer => {
            [1_000_000_000_000_000_000, -1_000_000_000_000_000_000, 4_294_967_296_i64].map(|value| json!(value)).into()
        }
        Shape::Map if holds_quantities(leaf) => hostile_quantities(),
        Shape::Map => HOSTILE_ENTRIES.iter().map(|(key, value)| json!({*key: value})).collect(),
        Shape::List if entry(leaf).is_string() => {
            [json!([""])].into_iter().chain(HOSTILE.map(|text| json!([text]))).collect()
        }
        // The fields of its objects are leaves themselves; what is left are objects with nothing or with too much in them.
        Shape::List => {
            let mut odd = entry(leaf);
            odd["unknown"] = json!({"deep": [1, 2, 3]});
            vec![json!([{}]), json!([odd]), json!([null])]
        }
    }
}

fn holds_quantities(leaf: &Leaf) -> bool {
    leaf.schema["additionalProperties"]["x-kubernetes-int-or-string"] == json!(true)
}

fn entry(leaf: &Leaf) -> Value {
    let mut path = leaf.path.clone();
    path.push(Step::Item);
    minimal(&path, &leaf.schema["items"])
}

/// The same entry with another name, where it has one.
fn distinct(entry: &Value, number: u64) -> Value {
    match entry {
        Value::String(text) => json!(format!("{text}{number}")),
        Value::Object(fields) => {
            let mut fields = fields.clone();
            for key in ["name", "key"] {
                if let Some(Value::String(text)) = fields.get_mut(key) {
                    text.push_str(&number.to_string());
                }
            }
            if fields.contains_key("address") {
                fields.insert("address".to_owned(), json!(format!("{number:064x}")));
            }
            Value::Object(fields)
        }
        other => other.clone(),
    }
}

/// A value that everybody takes, for a field at this place.
pub(crate) fn sound(path: &[Step], schema: &Value) -> Value {
    let names: Vec<&str> = path
        .iter()
        .filter_map(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            Step::Item => None,
        })
        .collect();
    let within = |name: &str| names.contains(&name);
    let name = names.last().copied().unwrap_or_default();
    let text = match name {
        "chainId" => "demo-1",
        "className" => "standard",
        "size" => "11Gi",
        "limit" => "1Ti",
        "repository" => "localhost/bizra",
        "tag" => "next",
        "digest" => "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "allowQuorumLossFor" => "0123456789abcdef",
        // The API server makes this one itself, and refuses pods of any that is not there.
        "priorityClassName" => "system-cluster-critical",
        "address" => "00000000000000000000000000000000000000000000000000000000000000aa",
        "balance" | "stake" => "1000",
        "cidr" => "10.0.0.0/8",
        "except" => "10.1.0.0/16",
        "topologyKey" => "topology.kubernetes.io/zone",
        "effect" => "NoExecute",
        "operator" if within("tolerations") => "Equal",
        "operator" => "In",
        "key" if within("matchFields") => "metadata.name",
        "key" => "example.com/key",
        "matchLabelKeys" => "example.com/match",
        "mismatchLabelKeys" => "example.com/mismatch",
        "name" if within("networkRef") => "demo",
        "name" if within("imagePullSecrets") => "registry",
        "name" if within("nodeRef") => "reader",
        "secretName" => "owner",
        "fee" => "1",
        _ => "value",
    };
    match schema["type"].as_str() {
        Some("integer") => match name {
            "tolerationSeconds" | "updateDeadlineSeconds" | "hostGraceSeconds" => json!(60),
            "authorityLifetimeSeconds" => json!(157_680_000),
            "nodeLifetimeSeconds" => json!(2_592_000),
            "replicas" => json!(2),
            "validators" => json!(4),
            _ => {
                let above = schema["minimum"].as_f64().map_or(1, |least| least as i64 + 1);
                let unit = schema["multipleOf"].as_f64().map_or(1, |unit| unit as i64);
                json!((above + unit - 1) / unit * unit)
            }
        },
        // Only what has happened can be acknowledged.
        Some("array") if name == "acknowledgedJailings" => json!([]),
        Some("array") => {
            let mut path = path.to_vec();
            path.push(Step::Item);
            json!([minimal(&path, &schema["items"])])
        }
        Some("object") if schema["properties"].is_object() => minimal(path, schema),
        Some("object") if name == "limits" || name == "requests" => json!({"cpu": "500m", "memory": "1Gi"}),
        Some("object") => json!({"example.com/team": "ledger"}),
        _ => match schema["enum"].as_array().and_then(|choices| choices.first()) {
            Some(choice) => choice.clone(),
            None => json!(text),
        },
    }
}

/// What an object at this place needs to be one: the required fields, and the values that an operator works on.
pub(crate) fn minimal(path: &[Step], schema: &Value) -> Value {
    let Some(properties) = schema["properties"].as_object() else { return sound(path, schema) };
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    // An empty peer is none, and nothing tolerates a taint without a word.
    let besides: &[&str] = if properties.contains_key("ipBlock") {
        &["podSelector"]
    } else if properties.contains_key("tolerationSeconds") {
        &["key", "operator", "value", "effect"]
    } else {
        &["values", "matchLabels", "labelSelector"]
    };
    build(path, properties, &|name| required(name) || besides.contains(&name), &minimal)
}

/// Fields of no fullest spec: excluded by each other or by rules, or of no use with what else is there.
const LEFT_OUT: [&str; 7] =
    ["digest", "claims", "ipBlock", "mismatchLabelKeys", "className", "matchExpressions", "acknowledgedJailings"];

/// A spec that says everything that can be said together.
pub(crate) fn full(path: &[Step], schema: &Value) -> Value {
    let Some(properties) = schema["properties"].as_object() else {
        if schema["type"] == json!("array") {
            let mut path = path.to_vec();
            path.push(Step::Item);
            return json!([full(&path, &schema["items"])]);
        }
        // What somebody may order besides the desired state would keep everything else from being seen.
        let ordered = schema["enum"].is_array() && schema.get("default").is_some();
        return if ordered { schema["default"].clone() } else { sound(path, schema) };
    };
    build(path, properties, &|name| !LEFT_OUT.contains(&name), &full)
}

fn build(
    path: &[Step],
    properties: &Map<String, Value>,
    is_wanted: &dyn Fn(&str) -> bool,
    inner: &dyn Fn(&[Step], &Value) -> Value,
) -> Value {
    let wanted = properties.iter().filter(|(name, _)| is_wanted(name));
    let fields = wanted.map(|(name, schema)| {
        let mut path = path.to_vec();
        path.push(Step::Field(name.clone()));
        (name.clone(), inner(&path, schema))
    });
    Value::Object(fields.collect())
}

/// Writes a value into a spec, or takes it away; what it needs around it is made.
pub(crate) fn write(spec: &mut Value, schema: &Value, leaf: &Leaf, value: Option<&Value>) {
    let (mut place, mut schema) = (spec, schema);
    for (depth, step) in leaf.path.iter().enumerate() {
        let (here, is_last) = (&leaf.path[..=depth], depth + 1 == leaf.path.len());
        match step {
            Step::Field(name) => {
                schema = &schema["properties"][name.as_str()];
                let Some(fields) = place.as_object_mut() else { return };
                match value {
                    Some(value) if is_last => drop(fields.insert(name.clone(), value.clone())),
                    None if is_last => drop(fields.remove(name)),
                    // There is nothing to be taken away.
                    None if !fields.contains_key(name) => return,
                    _ => {}
                }
                if is_last {
                    return;
                }
                let has_items = schema["type"] == json!("array");
                let empty = || if has_items { json!([]) } else { minimal(here, schema) };
                place = fields.entry(name.clone()).or_insert_with(empty);
            }
            Step::Item => {
                schema = &schema["items"];
                let Some(items) = place.as_array_mut() else { return };
                if items.is_empty() {
                    if value.is_none() {
                        return;
                    }
                    items.push(minimal(here, schema));
                }
                place = &mut items[0];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::schema::{leaves, specs};

    fn all() -> Vec<(Leaf, Value)> {
        let of = |(kind, spec): (String, Value)| {
            leaves(&kind, &spec).into_iter().map(|leaf| (leaf, spec.clone())).collect::<Vec<_>>()
        };
        specs().into_iter().flat_map(of).collect()
    }

    fn spec(kind: &str) -> Value {
        specs().into_iter().find(|(name, _)| name == kind).unwrap().1
    }

    #[test]
    fn every_leaf_has_values_of_every_sort() {
        for (leaf, _) in all() {
            let first: Vec<Sort> = candidates(&leaf).iter().map(|pile| pile[0].sort).collect();
            assert_eq!(first, SORTS, "{leaf}");
        }
    }

    #[test]
    fn every_value_can_be_written_into_its_leaf_and_be_taken_away() {
        for (leaf, schema) in all() {
            let pointer: String = leaf
                .path
                .iter()
                .map(|step| match step {
                    Step::Field(name) => format!("/{name}"),
                    Step::Item => "/0".to_owned(),
                })
                .collect();
            for value in candidates(&leaf).into_iter().flatten().filter_map(|candidate| candidate.value) {
                let mut spec = json!({});
                write(&mut spec, &schema, &leaf, Some(&value));
                assert_eq!(spec.pointer(&pointer), Some(&value), "{leaf} in {spec}");
                write(&mut spec, &schema, &leaf, None);
                assert_eq!(spec.pointer(&pointer), None, "{leaf} in {spec}");
            }
        }
    }

    #[test]
    fn bounds_are_tried_from_both_sides() {
        let (leaf, _) = all().into_iter().find(|(leaf, _)| leaf.name() == "updateDeadlineSeconds").unwrap();
        let tried: BTreeSet<String> = at_bounds(&leaf).iter().map(ToString::to_string).collect();
        for bound in ["9", "10", "86400", "86401", "0", "-1", "2147483648", "9223372036854775807"] {
            assert!(tried.contains(bound), "{bound} in {tried:?}");
        }
        let (leaf, _) = all().into_iter().find(|(leaf, _)| leaf.name() == "imagePullSecrets").unwrap();
        let counts: Vec<usize> = at_bounds(&leaf).iter().map(|list| list.as_array().unwrap().len()).collect();
        assert_eq!(counts, [0, 1, 2, 10, 10, 11], "none, one, the same twice, many, as many as may be, too many");
    }

    #[test]
    fn the_fullest_spec_of_each_kind_can_be_read_and_keeps_the_rules() {
        use bizra_operator::api::{BizraNode, Network, NodePool, Validator, validate};
        let object = |kind: &str| {
            let spec = full(&[], &spec(kind));
            json!({"apiVersion": "bizra.io/v1alpha1", "kind": kind, "metadata": {"name": "demo"}, "spec": spec})
        };
        validate(&serde_json::from_value::<Network>(object("Network")).unwrap()).unwrap();
        validate(&serde_json::from_value::<BizraNode>(object("BizraNode")).unwrap()).unwrap();
        validate(&serde_json::from_value::<NodePool>(object("NodePool")).unwrap()).unwrap();
        validate(&serde_json::from_value::<Validator>(object("Validator")).unwrap()).unwrap();
        let said = object("Network").to_string();
        for field in ["nodeAffinity", "tolerationSeconds", "autoGrow", "monitoring", "priorityClassName", "accounts"] {
            assert!(said.contains(field), "{field} in {said}");
        }
    }
}
