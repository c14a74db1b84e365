//! The health scripts of `config/argocd`, run as Argo CD runs them: Lua 5.1, the object as a global, a table returned.

#![allow(missing_docs, clippy::unwrap_used)]

use bizra_proto::exit::ExitReason;
use mlua::{Lua, Table, Value as LuaValue};
use serde_json::{Value, json};

fn to_lua(lua: &Lua, value: &Value) -> LuaValue {
    match value {
        Value::Null => LuaValue::Nil,
        Value::Bool(value) => LuaValue::Boolean(*value),
        Value::Number(number) => LuaValue::Number(number.as_f64().unwrap()),
        Value::String(text) => LuaValue::String(lua.create_string(text).unwrap()),
        Value::Array(items) => {
            let items = items.iter().map(|item| to_lua(lua, item));
            LuaValue::Table(lua.create_sequence_from(items).unwrap())
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, field)| (key.as_str(), to_lua(lua, field)));
            LuaValue::Table(lua.create_table_from(fields).unwrap())
        }
    }
}

fn health(kind: &str, object: &Value) -> (String, String) {
    let path = format!("../config/argocd/{kind}/health.lua");
    let lua = Lua::new();
    lua.globals().set("obj", to_lua(&lua, object)).unwrap();
    let table: Table = lua.load(std::fs::read_to_string(path).unwrap()).eval().unwrap();
    (table.get("status").unwrap(), table.get("message").unwrap())
}

fn object(generation: i64, height: Option<i64>, conditions: &[(&str, &str, &str)]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(type_, status, reason)| json!({"type": type_, "status": status, "reason": reason, "message": reason}))
        .collect();
    json!({
        "metadata": {"name": "demo", "generation": 2},
        "status": {"observedGeneration": generation, "height": height, "conditions": conditions},
    })
}

fn status_of(kind: &str, object: &Value) -> String {
    health(kind, object).0
}

#[test]
fn what_the_operator_has_not_seen_is_progressing() {
    for kind in ["network", "nodepool", "bizranode", "validator"] {
        assert_eq!(status_of(kind, &json!({"metadata": {"generation": 1}})), "Progressing");
        // The default of the definition.
        let fresh = json!({"metadata": {"generation": 1}, "status": {"observedGeneration": -1}});
        assert_eq!(status_of(kind, &fresh), "Progressing");
        assert_eq!(status_of(kind, &object(1, None, &[("Ready", "True", "InSync")])), "Progressing");
        let mut deleted = object(2, None, &[("Ready", "True", "InSync")]);
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(status_of(kind, &deleted), "Progressing");
    }
}

#[test]
fn ready_is_healthy_and_stalled_is_degraded_with_the_message() {
    for kind in ["network", "nodepool", "bizranode", "validator"] {
        let ready = object(2, Some(9), &[("Ready", "True", "InSync"), ("Stalled", "False", "NotStalled")]);
        assert_eq!(status_of(kind, &ready), "Healthy");
        let stalled = object(2, None, &[("Ready", "False", "NameTaken"), ("Stalled", "True", "NameTaken")]);
        assert_eq!(health(kind, &stalled), ("Degraded".to_owned(), "NameTaken".to_owned()));
    }
}

#[test]
fn a_network_is_degraded_without_quorum_but_not_while_it_is_made() {
    let conditions = [("Ready", "False", "ValidatorsNotReady"), ("QuorumSafe", "False", "NoQuorum")];
    assert_eq!(status_of("network", &object(2, None, &conditions)), "Progressing");
    assert_eq!(status_of("network", &object(2, Some(7), &conditions)), "Degraded");
    let one_gone = [("Ready", "False", "ValidatorsNotReady"), ("QuorumSafe", "True", "QuorumInSync")];
    assert_eq!(status_of("network", &object(2, Some(7), &one_gone)), "Progressing");
}

#[test]
fn a_node_that_stopped_by_itself_is_degraded() {
    for reason in ExitReason::ALL {
        let stopped = object(2, None, &[("Ready", "False", &reason.to_string())]);
        assert_eq!(status_of("bizranode", &stopped), "Degraded", "{reason}");
    }
    assert_eq!(status_of("bizranode", &object(2, None, &[("Ready", "False", "CatchingUp")])), "Progressing");
    let full_node = [("Ready", "True", "InSync"), ("KeyNotInGenesis", "True", "KeyNotInGenesis")];
    assert_eq!(status_of("bizranode", &object(2, None, &full_node)), "Degraded");
}

#[test]
fn what_was_told_to_stand_still_is_suspended_unless_something_is_wrong() {
    let not_ready = ("Ready", "False", "ValidatorsNotReady");
    for (kind, order) in [
        ("network", "Paused"),
        ("network", "Hibernated"),
        ("nodepool", "Paused"),
        ("nodepool", "Hibernated"),
        ("bizranode", "Paused"),
        ("bizranode", "Fenced"),
        ("bizranode", "Replaced"),
    ] {
        assert_eq!(
            status_of(kind, &object(2, Some(7), &[not_ready, (order, "True", order)])),
            "Suspended",
            "{kind} {order}"
        );
        let stalled = [not_ready, (order, "True", order), ("Stalled", "True", "NameTaken")];
        assert_eq!(status_of(kind, &object(2, Some(7), &stalled)), "Degraded", "{kind} {order}");
        assert_eq!(status_of(kind, &object(2, None, &[not_ready, (order, "False", order)])), "Progressing");
    }
    assert_eq!(status_of("bizranode", &object(2, None, &[("Ready", "False", "Hibernated")])), "Suspended");
    let degraded = [("Ready", "True", "InSync"), ("Degraded", "True", "CrashLoop")];
    assert_eq!(health("bizranode", &object(2, None, &degraded)), ("Degraded".to_owned(), "CrashLoop".to_owned()));
}
