#![allow(clippy::unwrap_used, clippy::panic)]
use std::time::Duration;

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::*;
use crate::resources::labels;

fn map(name: &str, uid: &str, version: u64) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.metadata.namespace = Some("default".to_owned());
    map.metadata.uid = Some(uid.to_owned());
    map.metadata.resource_version = Some(version.to_string());
    // As one of many: kept as text.
    let labels = [(labels::NETWORK, "demo"), (labels::NODE, name)];
    map.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    map
}

fn key(name: &str) -> ObjectKey {
    ("default".to_owned(), name.to_owned())
}

fn version(version: u64) -> Debt {
    Debt::Version { version: version.to_string(), is_report: false }
}

/// A watch tells these and no others; how many changes that were.
fn list(cache: &Cache<ConfigMap>, namespace: Option<&str>, objects: Vec<ConfigMap>) -> usize {
    let listed = objects.iter().map(key_of).collect();
    let told = objects.into_iter().filter_map(|object| cache.put(object)).count();
    told + cache.keep_only(namespace, &listed).len()
}

fn known(cache: &Cache<ConfigMap>, name: &str) -> Option<String> {
    match cache.look(&key(name)) {
        Answer::Known(map) => map.resource_version(),
        _ => None,
    }
}

#[test]
fn nothing_is_planned_from_a_cache_that_lacks_an_own_write() {
    let cache = Cache::default();
    cache.put(map("a", "u", 10));
    cache.owe(key("a"), version(12));
    assert_eq!(cache.look(&key("a")), Answer::Behind);
    assert_eq!(cache.behind("default"), [key("a")]);
    cache.put(map("a", "u", 11));
    assert_eq!(cache.look(&key("a")), Answer::Behind);
    cache.put(map("a", "u", 13));
    assert_eq!(known(&cache, "a").as_deref(), Some("13"));
    // An answer that comes after the watch has told leaves no debt.
    cache.owe(key("a"), version(13));
    assert_eq!(known(&cache, "a").as_deref(), Some("13"));
}

#[test]
fn a_created_object_is_behind_until_it_is_told_and_a_deleted_one_until_its_end_begins() {
    let cache = Cache::default();
    cache.owe(key("new"), version(5));
    assert_eq!(cache.look(&key("new")), Answer::Behind);
    cache.put(map("new", "u", 5));
    assert!(known(&cache, "new").is_some());

    cache.owe(key("new"), Debt::End { uid: "u".to_owned() });
    assert_eq!(cache.look(&key("new")), Answer::Behind);
    let mut ending = map("new", "u", 6);
    ending.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    cache.put(ending.clone());
    assert!(known(&cache, "new").is_some());
    cache.remove(&ending);
    assert_eq!(cache.look(&key("new")), Answer::Absent);
}

#[test]
fn an_object_that_was_written_and_deleted_by_somebody_else_at_once_is_no_debt_for_ever() {
    let cache = Cache::default();
    cache.owe(key("a"), version(5));
    cache.remove(&map("a", "u", 6));
    assert_eq!(cache.look(&key("a")), Answer::Absent);
    // The watch was interrupted meanwhile and lists anew: the API server has to be asked once.
    cache.owe(key("b"), version(5));
    list(&cache, None, Vec::new());
    assert_eq!(cache.look(&key("b")), Answer::Behind);
    cache.learn(&key("b"), None, cache.before());
    assert_eq!(cache.look(&key("b")), Answer::Gone);
}

#[test]
fn a_lost_answer_has_to_be_asked_for() {
    let cache = Cache::default();
    cache.put(map("a", "u", 10));
    cache.owe(key("a"), Debt::Unknown);
    cache.owe(key("a"), version(9));
    cache.put(map("a", "u", 11));
    assert_eq!(cache.look(&key("a")), Answer::Behind);
    cache.learn(&key("a"), Some(&map("a", "u", 12)), cache.before());
    assert_eq!(cache.look(&key("a")), Answer::Behind);
    cache.put(map("a", "u", 12));
    assert!(known(&cache, "a").is_some());
}

#[test]
fn an_answer_that_is_older_than_an_own_write_pays_nothing() {
    let cache = Cache::default();
    cache.put(map("a", "u", 10));
    let before = cache.before();
    // The question is on its way; meanwhile the object is written.
    cache.owe(key("a"), version(12));
    cache.learn(&key("a"), Some(&map("a", "u", 10)), before);
    assert_eq!(cache.look(&key("a")), Answer::Behind);
    cache.owe(key("b"), version(13));
    cache.learn(&key("b"), None, before);
    assert_eq!(cache.look(&key("b")), Answer::Behind);
    cache.put(map("a", "u", 12));
    cache.put(map("b", "v", 13));
    assert!(known(&cache, "a").is_some() && known(&cache, "b").is_some());
}

#[test]
fn what_is_made_and_ended_before_the_watch_tells_is_not_taken_for_alive() {
    let cache = Cache::default();
    cache.owe(key("a"), version(5));
    cache.owe(key("a"), Debt::End { uid: "u".to_owned() });
    cache.put(map("a", "u", 5));
    assert_eq!(cache.look(&key("a")), Answer::Behind);
    cache.remove(&map("a", "u", 6));
    assert_eq!(cache.look(&key("a")), Answer::Absent);
}

#[test]
fn what_no_watch_selects_is_asked_for_each_time() {
    let cache: Cache<ConfigMap> = Cache::default();
    let mut foreign = map("a", "u", 3);
    foreign.metadata.labels = None;
    assert_eq!(cache.look(&key("a")), Answer::Absent);
    cache.learn(&key("a"), Some(&foreign), cache.before());
    assert_eq!(cache.look(&key("a")), Answer::Behind);
    cache.learn(&key("a"), None, cache.before());
    assert_eq!(cache.look(&key("a")), Answer::Gone);
}

#[test]
fn a_list_of_a_server_that_is_behind_takes_nothing_back() {
    let cache = Cache::default();
    cache.put(map("a", "u", 10));
    assert_eq!(list(&cache, None, vec![map("a", "u", 8)]), 0);
    assert_eq!(known(&cache, "a").as_deref(), Some("10"));
    assert_eq!(list(&cache, None, vec![map("a", "former", 9)]), 0);
    assert_eq!(list(&cache, None, vec![map("a", "next", 11)]), 1);
}

#[test]
fn a_network_finds_its_objects_and_a_list_touches_its_own_namespace_only() {
    let cache = Cache::default();
    cache.put(map("a", "u", 1));
    let mut elsewhere = map("b", "v", 2);
    elsewhere.metadata.namespace = Some("other".to_owned());
    cache.put(elsewhere);
    assert_eq!(cache.of_network("default", "demo").len(), 1);
    let mut moved = map("a", "u", 3);
    moved.metadata.labels = Some([(labels::NETWORK.to_owned(), "next".to_owned())].into());
    cache.put(moved);
    assert!(cache.of_network("default", "demo").is_empty());
    assert_eq!(cache.of_network("default", "next").len(), 1);
    assert_eq!(list(&cache, Some("default"), Vec::new()), 1);
    assert_eq!(cache.len(), 1);
}

#[test]
fn an_own_report_is_told_from_other_changes() {
    let cache = Cache::default();
    cache.put(map("a", "u", 1));
    cache.owe(key("a"), Debt::Version { version: "2".to_owned(), is_report: true });
    assert!(cache.behind("default").is_empty());
    assert!(cache.put(map("a", "u", 2)).unwrap().is_own_report);
    assert!(!cache.put(map("a", "u", 3)).unwrap().is_own_report);
    // A report on top of another write stands for both.
    cache.owe(key("a"), version(4));
    cache.owe(key("a"), Debt::Version { version: "5".to_owned(), is_report: true });
    cache.put(map("a", "u", 4));
    assert_eq!(cache.behind("default"), [key("a")]);
}

#[tokio::test]
async fn waiting_ends_with_the_watch_or_with_patience() {
    let cache = Arc::new(Cache::default());
    cache.owe(key("a"), version(5));
    assert!(!cache.catch_up(&key("a"), Duration::from_millis(10)).await);
    let told = Arc::clone(&cache);
    let telling = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        told.put(map("a", "u", 5));
    });
    assert!(cache.catch_up(&key("a"), Duration::from_secs(10)).await);
    telling.await.unwrap();
    assert!(cache.catch_up(&key("never-written"), Duration::ZERO).await);
}
