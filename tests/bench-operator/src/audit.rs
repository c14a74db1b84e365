//! What a client asked of the API server, from the server's own audit log.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use serde_json::Value;

/// The operator of this project, and the Go operator it is compared with.
pub(crate) const OPERATOR_USER: &str = "system:serviceaccount:bizra-system:bizra-operator";
pub(crate) const PEER_USER: &str = "system:serviceaccount:bizra-system:peer";

/// Writes the policy and returns the arguments that make the API server follow it.
pub(crate) fn arguments(folder: &Path) -> Vec<String> {
    let policy = format!(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
         - {{level: Metadata, users: [\"{OPERATOR_USER}\", \"{PEER_USER}\"]}}\n- {{level: None}}\n"
    );
    let file = folder.join("audit-policy.yaml");
    std::fs::write(&file, policy).unwrap();
    vec![
        format!("--audit-policy-file={}", file.display()),
        format!("--audit-log-path={}", log(folder).display()),
        // Megabytes: one file for a whole run.
        "--audit-log-maxsize=100000".to_owned(),
    ]
}

fn log(folder: &Path) -> PathBuf {
    folder.join("audit.log")
}

/// Requests by verb and resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    by_verb_and_resource: BTreeMap<(String, String), u64>,
}

impl Requests {
    fn count(&self, wanted: impl Fn(&str, &str) -> bool) -> u64 {
        let chosen = self.by_verb_and_resource.iter().filter(|((verb, resource), _)| wanted(verb, resource));
        chosen.map(|(_, count)| count).sum()
    }

    /// Everything that changes something, Events included and renewals of the operator's own lease not.
    pub(crate) fn writes(&self) -> u64 {
        self.count(|verb, resource| is_write(verb) && resource != "leases")
    }

    /// Events among the writes.
    pub(crate) fn events(&self) -> u64 {
        self.count(|verb, resource| is_write(verb) && resource == "events")
    }

    /// Renewals of the operator's own lease.
    pub(crate) fn lease_writes(&self) -> u64 {
        self.count(|verb, resource| is_write(verb) && resource == "leases")
    }

    /// Gets and lists. Watches are asked for once and then only listened to.
    pub(crate) fn reads(&self) -> u64 {
        self.count(|verb, resource| matches!(verb, "get" | "list") && resource != "leases")
    }

    /// Numbers by verb and resource.
    pub(crate) fn table(&self) -> BTreeMap<String, u64> {
        self.by_verb_and_resource
            .iter()
            .map(|((verb, resource), count)| (format!("{verb} {resource}"), *count))
            .collect()
    }
}

fn is_write(verb: &str) -> bool {
    matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection")
}

/// Reads the log from where it stopped last.
pub(crate) struct Audit {
    path: PathBuf,
    offset: u64,
    user: &'static str,
}

impl Audit {
    /// Of this user, from the start.
    pub(crate) fn of(user: &'static str, folder: &Path) -> Self {
        Self { path: log(folder), offset: 0, user }
    }

    /// What has been asked since the last call. The server writes each line before it answers.
    pub(crate) fn since(&mut self) -> Requests {
        let mut requests = Requests::default();
        let Ok(mut file) = File::open(&self.path) else { return requests };
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 0 {
            // The last line may still be on its way; it is read the next time.
            if !line.ends_with('\n') {
                break;
            }
            self.offset += line.len() as u64;
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            line.clear();
            let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let verb = text("/verb");
            // A watch is logged when it begins and again when it ends.
            let stage = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
            if text("/user/username") != self.user || text("/stage") != stage {
                continue;
            }
            let resource = match (text("/objectRef/resource"), text("/objectRef/subresource")) {
                (resource, "") => resource.to_owned(),
                (resource, part) => format!("{resource}/{part}"),
            };
            *requests.by_verb_and_resource.entry((verb.to_owned(), resource)).or_default() += 1;
        }
        requests
    }
}
