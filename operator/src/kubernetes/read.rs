//! One object from the API server.

use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::resources::names::is_subdomain;

/// Reads an object; none if there is none. A name that no object can have is not asked for: names become part of the path of
/// a request as they are. The API server does not follow `../` in one that somebody refers to; a proxy before it may.
pub async fn find<K>(api: &Api<K>, name: &str) -> Result<Option<K>, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    if is_subdomain(name) { api.get_opt(name).await } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_lead_elsewhere_is_no_name() {
        for name in ["demo", "demo-v0", "owner.of-7", "0"] {
            assert!(is_subdomain(name), "{name}");
        }
        let long = "a".repeat(254);
        for name in
            ["", ".", "..", "../a", "a/b", "a/../../b", "a%2fb", "a?watch=true", "a#b", "A", "\u{e9}", " a", &long]
        {
            assert!(!is_subdomain(name), "{name}");
        }
    }
}
