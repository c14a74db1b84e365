//! Half of the validators are destroyed with their volumes, and owners restart the chain: real processes, real disks, and
//! the commands of `docs/runbooks/mass-loss.md`.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::devnet::Devnet;
use crate::common::patience::wait;
use crate::common::process::{self, Process, command, run};
use bizra_node::configuration::Configuration;
use bizra_node::identity::{Authority, SignerFolder};
use bizra_node::recovery;
use bizra_simplex::types::Epoch;
use serde_json::Value;

/// What a node says is final: height and hash.
fn tip(devnet: &Devnet, node: usize) -> Option<(u64, String)> {
    let chain = devnet.json(node, "/v1/chain")?;
    Some((chain["finalizedHeight"].as_u64()?, chain["finalizedHash"].as_str()?.to_owned()))
}

fn hash_at(devnet: &Devnet, node: usize, height: u64) -> String {
    let block = devnet.json(node, &format!("/v1/blocks/{height}")).unwrap();
    block["hash"].as_str().expect("a hash").to_owned()
}

fn read(path: &str) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Gives every node, and the old volumes, certificates of one new authority.
fn certify(devnet: &Devnet, files: &[(&str, &str, &str)]) {
    let authority = Authority::generate("test nodes").unwrap();
    fs::write(devnet.path("certificates/ca.crt"), authority.certificate_pem()).unwrap();
    for (folder, name, file) in files {
        let configuration = Configuration::load(devnet.path(&format!("{folder}/node.toml")).as_ref()).unwrap();
        let signer = SignerFolder::open(&configuration.data_dir, &configuration.volume_id).unwrap();
        let request = signer.tls_key().unwrap().certificate_request(name).unwrap();
        let names = [(*name).to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = authority.sign_request(&request, &names).unwrap();
        fs::write(devnet.path(&format!("certificates/{file}.crt")), certificate).unwrap();
    }
}

/// Takes a node's volume away, to `old-NAME`, and puts a fresh one with the same configuration in its place.
fn destroy(devnet: &Devnet, node: usize) {
    let (name, old) = (format!("v{node}"), format!("old-v{node}"));
    fs::rename(devnet.path(&name), devnet.path(&old)).unwrap();
    fs::create_dir(devnet.path(&name)).unwrap();
    let text = fs::read_to_string(devnet.path(&format!("{old}/node.toml"))).unwrap();
    let fresh = text.replace(&format!("devnet-{name}"), &format!("devnet-{name}-again"));
    assert_ne!(fresh, text);
    fs::write(devnet.path(&format!("{name}/node.toml")), fresh).unwrap();
    // The old one, should it come back: its own folder, its own certificate.
    let returned =
        text.replace(&devnet.path(&name), &devnet.path(&old)).replace(&format!("{name}.crt"), &format!("{old}.crt"));
    fs::write(devnet.path(&format!("{old}/node.toml")), returned).unwrap();
}

/// The key report of a node, as `init-key` gives it to the kubelet.
fn key_report(devnet: &Devnet, node: usize) -> String {
    let configuration = devnet.configuration(node);
    let report = devnet.path(&format!("v{node}.json"));
    let data = devnet.path(&format!("v{node}"));
    let name = format!("v{node}");
    let mut init = command(&[
        "init-key",
        "--data-dir",
        &data,
        "--chain-id",
        "devnet",
        "--node-name",
        &name,
        "--volume-id",
        &configuration.volume_id,
    ]);
    assert!(init.env("BIZRA_TERMINATION_LOG", &report).stderr(Stdio::null()).status().unwrap().success());
    report
}

struct Recovery<'a> {
    devnet: &'a Devnet,
    genesis: String,
}

impl Recovery<'_> {
    fn path(&self, name: &str) -> String {
        self.devnet.path(name)
    }

    fn draft(&self, reports: &[&str], out: &str, more: &[&str]) -> Result<String, String> {
        let reports: Vec<String> = reports.iter().map(|name| self.path(name)).collect();
        let reports: Vec<&str> = reports.iter().map(String::as_str).collect();
        let validators: Vec<String> = (0..4).map(|node| self.path(&format!("v{node}.json")) + ":1").collect();
        let mut arguments = vec!["recover", "draft"];
        arguments.extend(reports);
        arguments.extend(["--genesis", &self.genesis]);
        for validator in &validators {
            arguments.extend(["--validator", validator]);
        }
        let out = self.path(out);
        arguments.extend(["--out", &out]);
        run(&[&arguments, more].concat())
    }

    fn hash(&self, document: &str) -> String {
        let shown = process::json(&["recover", "show", "--document", &self.path(document), "--genesis", &self.genesis]);
        shown["hash"].as_str().unwrap().to_owned()
    }

    fn sign(&self, document: &str, owner: usize) -> Result<String, String> {
        let (file, key) = (self.path(document), self.path(&format!("owner-{owner}.key")));
        let hash = self.hash(document);
        run(&["recover", "sign", "--document", &file, "--genesis", &self.genesis, "--key", &key, "--hash", &hash])
    }

    fn apply(&self, document: &str, folder: &str) -> Result<String, String> {
        let (document, config) = (self.path(document), self.path(&format!("{folder}/node.toml")));
        run(&["recover", "apply", "--document", &document, "--config", &config])
    }
}

#[test]
fn owners_restart_a_chain_of_which_half_the_validators_are_destroyed() {
    let mut devnet = Devnet::make(4, &["--accounts", "100", "--epoch-blocks", "32"]);
    (0..4).for_each(|node| devnet.run(node));
    devnet.wait_height(0, 2);
    // Owner keys are kept apart from the machines.
    (0..4).for_each(|node| {
        fs::copy(devnet.path(&format!("v{node}/owner.key")), devnet.path(&format!("owner-{node}.key"))).unwrap();
    });
    let acknowledged = devnet.load(2, &["--count", "500", "--rate", "200", "--accounts", "50", "--require-all"]);
    let output = { acknowledged }.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Under load, two are gone from one moment to the next. What each has told clients to be final must stay.
    let mut load = devnet.load(4, &["--count", "4000", "--rate", "400", "--accounts", "50"]);
    let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let gone = AtomicBool::new(false);
    let told: Vec<(u64, String)> = std::thread::scope(|scope| {
        let watch = |node: usize| {
            let (devnet, gone) = (&devnet, &gone);
            scope.spawn(move || {
                let mut told = Vec::new();
                while !gone.load(Ordering::Relaxed) {
                    told.extend(tip(devnet, node));
                }
                told.dedup();
                told
            })
        };
        let watching: Vec<_> = (0..4).map(watch).collect();
        std::thread::sleep(Duration::from_secs(3));
        let pids: Vec<u32> = [2, 3].map(|node| devnet.pid(node)).to_vec();
        for pid in pids {
            assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        }
        std::thread::sleep(Duration::from_millis(500));
        gone.store(true, Ordering::Relaxed);
        watching.into_iter().flat_map(|watching| watching.join().unwrap()).collect()
    });
    for node in [2, 3] {
        devnet.kill(node);
    }
    let _ = load.kill();
    let _ = load.wait();
    let highest = told.iter().map(|(height, _)| *height).max().unwrap();
    let stalled = devnet.height(0).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(devnet.height(0).unwrap() <= stalled + 1, "half of the power finalises nothing");
    for node in [2, 3] {
        destroy(&devnet, node);
    }
    for node in [0, 1] {
        devnet.stop(node);
    }

    // Reports, key reports, draft.
    let recovery = Recovery { devnet: &devnet, genesis: devnet.path("genesis.json") };
    for node in [0, 1] {
        let (config, out) = (devnet.configuration_file(node), devnet.path(&format!("report-v{node}.json")));
        let before = fs::read(devnet.path(&format!("v{node}/signer/record"))).unwrap();
        run(&["recover", "report", "--config", &config, "--out", &out]).unwrap();
        assert!(before == fs::read(devnet.path(&format!("v{node}/signer/record"))).unwrap());
    }
    (0..4).for_each(|node| drop(key_report(&devnet, node)));
    let drafted = recovery.draft(&["report-v0.json", "report-v1.json"], "restart.json", &[]).unwrap();
    assert!(!drafted.contains("MAY LOSE"), "{drafted}");
    let document = read(&devnet.path("restart.json"));
    let height = document["height"].as_u64().unwrap();
    assert!(height >= highest, "the restart is at {height}, and clients were told of {highest}");
    certify(
        &devnet,
        &[("v0", "v0", "v0"), ("v1", "v1", "v1"), ("v2", "v2", "v2"), ("v3", "v3", "v3"), ("old-v2", "v2", "old-v2")],
    );

    // Too few, foreign and wrong signatures.
    assert!(recovery.apply("restart.json", "v0").unwrap_err().contains("power 0 of 4"));
    for owner in [0, 1] {
        recovery.sign("restart.json", owner).unwrap();
    }
    assert!(recovery.apply("restart.json", "v0").unwrap_err().contains("power 2 of 4"));
    run(&["keygen", "--out", &devnet.path("owner-9.key")]).unwrap();
    fs::copy(devnet.path("restart.json"), devnet.path("foreign.json")).unwrap();
    recovery.sign("foreign.json", 9).unwrap();
    assert!(recovery.apply("foreign.json", "v0").unwrap_err().contains("power 2 of 4"), "a stranger's weighs nothing");
    let mut forged = document.clone();
    forged["mayLoseFinality"] = Value::Bool(true);
    forged["signatures"] = read(&devnet.path("restart.json"))["signatures"].clone();
    fs::write(devnet.path("forged.json"), serde_json::to_vec(&forged).unwrap()).unwrap();
    assert!(recovery.apply("forged.json", "v0").unwrap_err().contains("not valid for this document"));
    assert!(!devnet.path("v0/signer/restart-1").is_empty() && !fs::exists(devnet.path("v0/signer/restart-1")).unwrap());
    // A new node cannot weigh them yet. It takes more signatures of the same document later.
    assert!(recovery.apply("restart.json", "v2").unwrap().contains("does not hold its last block"));
    recovery.sign("restart.json", 2).unwrap();
    assert!(recovery.apply("restart.json", "v2").unwrap().contains("signatures of more owners"));

    // A crash in the middle: the floor is up, the document not pinned. The node signs nothing; the same command goes on.
    let epoch = document["epoch"].as_u64().unwrap();
    recovery::raise_floor(&devnet.configuration(0), Epoch(epoch)).unwrap();
    fs::write(devnet.path("v0/signer/restart.new"), b"half").unwrap();
    assert!(recovery.apply("restart.json", "v0").unwrap().contains("restart 1 is pinned"));
    assert!(recovery.apply("restart.json", "v0").unwrap().contains("was pinned before"));
    let record = devnet.path("v1/signer/record");
    let before = fs::read(&record).unwrap();
    for node in [1, 2, 3] {
        recovery.apply("restart.json", &format!("v{node}")).unwrap();
    }
    // An older copy of the record could sign for the old set: it does not start.
    let applied = fs::read(&record).unwrap();
    fs::write(&record, before).unwrap();
    let refused = devnet.node(1).output().unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("is an older copy"));
    fs::write(&record, applied).unwrap();
    // Another document with the same number, as rightly signed as the first.
    recovery.draft(&["report-v0.json", "report-v1.json"], "second.json", &["--may-lose-finality"]).unwrap();
    (0..4).for_each(|owner| drop(recovery.sign("second.json", owner).unwrap()));
    assert!(recovery.apply("second.json", "v1").unwrap_err().contains("another document of restart 1 is pinned"));

    // The network finalises again, with what was final, past the end of the first epoch, with four votes or three.
    (0..4).for_each(|node| devnet.run(node));
    let again = devnet.wait_height(0, height + 3);
    (0..4).for_each(|node| {
        devnet.wait_height(node, again);
    });
    for (height, hash) in &told {
        for node in 0..4 {
            assert_eq!(hash_at(&devnet, node, *height), *hash, "v{node} at {height}");
        }
    }
    let load = devnet.load(4, &["--count", "8000", "--rate", "400", "--accounts", "50", "--require-all"]);
    let output = { load }.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let end = devnet.wait_height(0, (epoch + 1) * 32 + 5);
    let chain = devnet.json(0, &format!("/v1/blocks/{end}")).unwrap();
    assert!(chain["epoch"].as_u64().unwrap() > epoch, "{chain}");

    // Who trusts only the genesis stops there; with the document it goes on, and again from what it has kept.
    let (genesis, url, period) = (devnet.path("genesis.json"), devnet.url(3), "86400");
    let light = ["light", "--genesis", &genesis, "--node", &url, "--trust-period", period];
    let stops = command(&light).output().unwrap();
    let told = String::from_utf8_lossy(&stops.stderr);
    assert!(!stops.status.success() && told.contains("--restart"), "{told}");
    let (document, trust) = (devnet.path("restart.json"), devnet.path("trust.json"));
    for _ in 0..2 {
        let arguments = [&light[..], &["--restart", &document, "--trust", &trust]].concat();
        let verified = process::json(&arguments);
        assert!(
            verified["epoch"].as_u64().unwrap() > epoch && verified["height"].as_u64().unwrap() >= end,
            "{verified}"
        );
    }

    // A destroyed validator comes back with its old volume, in the place of its successor: nobody talks to it.
    devnet.kill(2);
    let log = devnet.path("old-v2/test.log");
    let mut old = command(&["run", "--config", &devnet.path("old-v2/node.toml")]);
    let old = Process::logged(&mut old, &log);
    wait("a refusal", || devnet.log(0).contains("genesis or last restart").then_some(()));
    let went_on = devnet.wait_height(0, end + 5);
    devnet.wait_height(3, went_on);
    let old_height = devnet.height(2).expect("the old node answers");
    assert!(old_height <= height, "it follows nothing after the restart");
    drop(old);
    devnet.run(2);
    devnet.wait_height(2, went_on);

    (0..4).for_each(|node| devnet.stop(node));
    for node in 0..4 {
        let (data, genesis) = (devnet.path(&format!("v{node}")), devnet.path("genesis.json"));
        let report = process::json(&["verify", "--data-dir", &data, "--genesis", &genesis]);
        assert!(report["blocks"].as_u64().unwrap() >= went_on, "{report}");
    }
}
