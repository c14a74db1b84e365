//! Whether a live object already is what a manifest asks for.

use serde_json::Value;

/// True if every leaf of `desired` is in `live` with the same value. What `live` has besides is the API server's and
/// other managers' business. Empty objects and lists ask for nothing.
pub fn covers(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired
            .iter()
            .all(|(key, wanted)| live.get(key).map_or_else(|| is_empty(wanted), |actual| covers(actual, wanted))),
        // Items keep their order: none of our lists is a set.
        (Value::Array(live), Value::Array(desired)) => {
            live.len() == desired.len() && live.iter().zip(desired).all(|(actual, wanted)| covers(actual, wanted))
        }
        (live, desired) => live == desired,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::covers;

    #[test]
    fn additions_of_others_do_not_matter() {
        assert!(covers(&json!({"a": 1, "b": {"c": 2, "d": 3}}), &json!({"b": {"c": 2}})));
        assert!(covers(&json!({"ports": [{"port": 1, "nodePort": 9}]}), &json!({"ports": [{"port": 1}]})));
    }

    #[test]
    fn every_desired_leaf_matters() {
        assert!(!covers(&json!({"a": 1}), &json!({"a": 2})));
        assert!(!covers(&json!({"a": {}}), &json!({"a": {"b": 1}})));
        assert!(!covers(&json!({"a": [1, 2]}), &json!({"a": [1]})));
        assert!(covers(&json!({}), &json!({"a": {"b": []}})));
    }
}
