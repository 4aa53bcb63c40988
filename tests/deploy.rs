//! What stands in deploy/ is what the gateway understands, and its parts fit each other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use support::pki::Pki;
use tempfile::TempDir;

fn deploy(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(file)).unwrap()
}

/// The configuration in the ConfigMap.
fn kubernetes_config() -> String {
    let manifest = deploy("kubernetes/wssgate.yaml");
    let lines = manifest.lines().skip_while(|line| line.trim() != "wssgate.toml: |").skip(1);
    let block = lines.take_while(|line| line.is_empty() || line.starts_with("    "));
    block.map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n").collect()
}

/// What stands behind the first `key` of a text, to the end of the line.
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let rest = text.split_once(key).unwrap_or_else(|| panic!("no {key:?} in\n{text}")).1;
    rest.lines().next().unwrap().trim()
}

fn seconds(text: &str, key: &str) -> u64 {
    value(text, key).trim_matches(['"', 's']).parse().unwrap()
}

#[test]
fn every_configuration_is_one() {
    for (name, config) in [
        ("systemd", deploy("systemd/wssgate.toml")),
        ("docker", deploy("docker/wssgate.toml")),
        ("kubernetes", kubernetes_config()),
    ] {
        let temp = TempDir::new().unwrap();
        let certs = temp.path().join("certs");
        Pki::new().issue(&["domain.com"]).write(&certs, "domain.com");
        let directory = format!("directory = {}", value(&config, "directory = "));
        let config = config.replace(&directory, "directory = \"certs\"");
        let file = temp.path().join("wssgate.toml");
        fs::write(&file, config).unwrap();
        let checked = Command::new(env!("CARGO_BIN_EXE_wssgate"))
            .args(["check", "--config"])
            .arg(file)
            .output()
            .unwrap();
        assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn no_pod_is_killed_before_it_has_drained() {
    let unit = deploy("systemd/wssgate.service");
    let config = deploy("systemd/wssgate.toml");
    assert!(!config.contains("drain_timeout"), "then compare it, not the default");
    assert!(seconds(&unit, "TimeoutStopSec=") > 30, "drain_timeout is 30 s");
    let (manifest, config) = (deploy("kubernetes/wssgate.yaml"), kubernetes_config());
    assert!(
        seconds(&manifest, "terminationGracePeriodSeconds: ") > seconds(&config, "drain_timeout = ")
            && seconds(&config, "drain_timeout = ")
                > seconds(&config, "drain_delay = ") + seconds(&config, "drain_window = ")
    );
}

#[test]
fn ports_are_the_same_everywhere() {
    let listener = |config: &str| value(config, "[[listener]]\naddress = ").trim_matches('"').to_owned();
    let socket = deploy("systemd/wssgate.socket");
    assert_eq!(value(&socket, "ListenStream="), listener(&deploy("systemd/wssgate.toml")));
    let (image, config) = (deploy("docker/Dockerfile"), deploy("docker/wssgate.toml"));
    assert!(listener(&config).ends_with(&format!(":{}", value(&image, "EXPOSE "))));
    let (manifest, config) = (deploy("kubernetes/wssgate.yaml"), kubernetes_config());
    for (name, address) in
        [("wss", listener(&config)), ("admin", value(&config, "[admin]\naddress = ").to_owned())]
    {
        let port = address.trim_matches('"').rsplit_once(':').unwrap().1.to_owned();
        assert!(manifest.contains(&format!("name: {name}, containerPort: {port}")), "{name}");
    }
}
