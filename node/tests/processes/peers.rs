//! Who a node is, is what it proves, not what it is called; and peers come with the configuration file, without a restart.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::devnet::Devnet;
use crate::common::patience::wait;
use bizra_node::configuration::Configuration;
use bizra_node::identity::{Authority, SignerFolder};

/// The fourth validator runs under another name than the genesis gives it, as one that joined later has none there.
const RENAMED: &str = "newcomer";

/// Writes a configuration whole or not at all, as the mount of a `ConfigMap` does.
fn write(file: &str, configuration: &Configuration) {
    let aside = Path::new(file).with_extension("new");
    fs::write(&aside, toml::to_string(configuration).unwrap()).unwrap();
    fs::rename(&aside, file).unwrap();
}

#[test]
fn a_validator_under_another_name_is_known_by_its_key_once_it_is_configured() {
    let mut devnet = Devnet::make(4, &[]);
    let mut configurations: Vec<Configuration> = (0..4).map(|node| devnet.configuration(node)).collect();
    let authority = Authority::generate("nodes").unwrap();
    fs::write(&configurations[0].tls.ca_file, authority.certificate_pem()).unwrap();
    configurations[3].node_name = RENAMED.to_owned();
    for configuration in &configurations {
        let key = SignerFolder::open_unchecked(&configuration.data_dir).unwrap().tls_key().unwrap();
        let name = &configuration.node_name;
        let certificate =
            authority.sign_request(&key.certificate_request(name).unwrap(), std::slice::from_ref(name)).unwrap();
        fs::write(&configuration.tls.certificate_file, certificate).unwrap();
    }
    // v2 never runs, so the others need each other: none may sign before two of them have answered it (S5).
    let mut complete = configurations;
    for peer in complete.iter_mut().flat_map(|configuration| &mut configuration.peers) {
        if peer.name == "v3" {
            RENAMED.clone_into(&mut peer.name);
        }
    }
    for (node, configuration) in complete.iter().enumerate() {
        let mut without = configuration.clone();
        without.peers.retain(|peer| peer.name != RENAMED);
        write(&devnet.configuration_file(node), if node == 3 { configuration } else { &without });
    }
    for node in [0, 1, 3] {
        devnet.run(node);
    }
    let alone = wait("the start of v0", || devnet.height(0));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(devnet.height(0), Some(alone), "two of four validators are no quorum, and the third is unknown");

    (0..2).for_each(|node| write(&devnet.configuration_file(node), &complete[node]));
    devnet.wait_height(0, alone + 20);
}
