//! One object from the API server.

use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Longest name of an object, in bytes.
const NAME_MAX_BYTES: usize = 253;

/// Reads an object; none if there is none. A name that no object can have is not asked for: names become part of the path of
/// a request as they are. The API server does not follow `../` in one that somebody refers to; a proxy before it may.
pub async fn find<K>(api: &Api<K>, name: &str) -> Result<Option<K>, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    if is_name(name) { api.get_opt(name).await } else { Ok(None) }
}

/// A DNS subdomain, by its characters.
fn is_name(name: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= NAME_MAX_BYTES
        && name.bytes().next().is_some_and(is_alphanumeric)
        && name.bytes().all(|byte| is_alphanumeric(byte) || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_lead_elsewhere_is_no_name() {
        for name in ["demo", "demo-v0", "owner.of-7", "0"] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(254);
        for name in
            ["", ".", "..", "../a", "a/b", "a/../../b", "a%2fb", "a?watch=true", "a#b", "A", "\u{e9}", " a", &long]
        {
            assert!(!is_name(name), "{name}");
        }
    }
}
