//! Compares what the operator may do with what it did, by the API server's audit log: exits with 1 if a right was not used,
//! is one that nobody should have, or was missing.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
};

use bizra_e2e::audit::{Grant, Use, Verdict, grants};
use k8s_openapi::api::{
    apps::v1::Deployment,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject},
};
use kube::{Api, Client, ResourceExt as _, api::ListParams};

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: bizra-audit-rbac <audit log> <file for the result as JSON>";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<bool, Failure> {
    let [log, out] =
        std::env::args_os().skip(1).map(PathBuf::from).collect::<Vec<_>>().try_into().map_err(|_| USAGE)?;
    let client = Client::try_default().await?;
    let (own, account) = service_account(&client).await?;
    let granted = granted(&client, &own, &account).await?;
    let done = read(&log, &format!("system:serviceaccount:{own}:{account}"))?;
    let verdict = Verdict::of(&granted, &done, &own);
    print(&verdict);
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&out, serde_json::to_string_pretty(&verdict)?)?;
    Ok(verdict.is_clean())
}

/// Namespace and name of the operator's service account.
async fn service_account(client: &Client) -> Result<(String, String), Failure> {
    let selector = ListParams::default().labels("app.kubernetes.io/name=bizra-operator");
    let deployments = Api::<Deployment>::all(client.clone()).list(&selector).await?;
    let deployment = deployments.items.into_iter().next().ok_or("the operator is not installed in this cluster")?;
    let namespace = deployment.namespace().unwrap_or_default();
    let account = deployment.spec.template.spec.and_then(|spec| spec.service_account_name);
    Ok((namespace, account.ok_or("the operator's Deployment names no service account")?))
}

async fn granted(client: &Client, own: &str, account: &str) -> Result<BTreeSet<Grant>, Failure> {
    let is_it = |subjects: &Option<Vec<Subject>>| {
        subjects.iter().flatten().any(|subject| {
            subject.kind == "ServiceAccount" && subject.name == account && subject.namespace.as_deref() == Some(own)
        })
    };
    let everything = ListParams::default();
    let mut bindings: Vec<(Option<String>, RoleRef)> = Vec::new();
    for binding in Api::<ClusterRoleBinding>::all(client.clone()).list(&everything).await? {
        if is_it(&binding.subjects) {
            bindings.push((None, binding.role_ref));
        }
    }
    for binding in Api::<RoleBinding>::all(client.clone()).list(&everything).await? {
        if is_it(&binding.subjects) {
            bindings.push((binding.metadata.namespace, binding.role_ref));
        }
    }
    let mut all = BTreeSet::new();
    for (namespace, role) in bindings {
        let rules = match (role.kind.as_str(), &namespace) {
            ("Role", Some(namespace)) => {
                Api::<Role>::namespaced(client.clone(), namespace).get(&role.name).await?.rules
            }
            _ => Api::<ClusterRole>::all(client.clone()).get(&role.name).await?.rules,
        };
        all.extend(grants(namespace.as_deref(), &rules.unwrap_or_default()));
    }
    if all.is_empty() {
        return Err(format!("no role is bound to service account {own}/{account}").into());
    }
    Ok(all)
}

/// Reads the log, and the older ones beside it that it was rotated to.
fn read(log: &Path, user: &str) -> Result<Use, Failure> {
    let folder = log.parent().ok_or(USAGE)?;
    let stem = log.file_stem().and_then(|stem| stem.to_str()).ok_or(USAGE)?;
    let mut done = Use::default();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_log = Path::new(name).extension().is_some_and(|extension| extension == "log");
        if path != log && !(name.starts_with(&format!("{stem}-")) && is_log) {
            continue;
        }
        for line in BufReader::new(File::open(&path)?).lines() {
            let line = line?;
            done.add(&line, user).map_err(|error| format!("{}: {error} in {line}", path.display()))?;
        }
    }
    if done.allowed.is_empty() {
        return Err(format!("{} has no request of {user}: run the end-to-end tests first", log.display()).into());
    }
    Ok(done)
}

fn print(verdict: &Verdict) {
    let line = |grant: &Grant, what: String| {
        let group = if grant.group.is_empty() { "core" } else { &grant.group };
        let place = grant.namespace.as_deref().unwrap_or("(all)");
        println!("{place:<14} {group:<22} {:<26} {:<8} {what}", grant.resource, grant.verb);
    };
    for (grant, times) in &verdict.used {
        line(grant, times.to_string());
    }
    for (grant, why) in &verdict.needed {
        line(grant, (*why).to_owned());
    }
    for grant in &verdict.unused {
        line(grant, "UNUSED".to_owned());
    }
    for (grant, why) in &verdict.forbidden {
        line(grant, format!("FORBIDDEN: {why}"));
    }
    for (grant, times) in &verdict.refused {
        line(grant, format!("REFUSED {times} times"));
    }
    println!(
        "{} rights: {} used, {} needed by admission or without streaming lists, {} unused, {} of a forbidden kind; {} asked for in vain",
        verdict.used.len() + verdict.needed.len() + verdict.unused.len(),
        verdict.used.len(),
        verdict.needed.len(),
        verdict.unused.len(),
        verdict.forbidden.len(),
        verdict.refused.len()
    );
}
