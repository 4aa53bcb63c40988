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

/// What stands behind the first `key` of a text, to the end of the line.
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let rest = text.split_once(key).unwrap_or_else(|| panic!("no {key:?} in\n{text}")).1;
    rest.lines().next().unwrap().trim()
}

/// The last part of a path.
fn name_of(path: &str) -> &str {
    Path::new(path).file_name().unwrap().to_str().unwrap()
}

fn seconds(text: &str, key: &str) -> u64 {
    value(text, key).trim_matches(['"', 's']).parse().unwrap()
}

#[test]
fn every_configuration_is_one() {
    for (name, config) in [
        ("systemd", deploy("systemd/wssgate.toml")),
        ("docker", deploy("docker/wssgate.toml")),
        ("kubernetes", deploy("kubernetes/wssgate.toml")),
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
    let (manifest, config) = (deploy("kubernetes/deployment.yaml"), deploy("kubernetes/wssgate.toml"));
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
    let (manifest, config) = (deploy("kubernetes/deployment.yaml"), deploy("kubernetes/wssgate.toml"));
    for (name, address) in
        [("wss", listener(&config)), ("admin", value(&config, "[admin]\naddress = ").to_owned())]
    {
        let port = address.trim_matches('"').rsplit_once(':').unwrap().1.to_owned();
        assert!(manifest.contains(&format!("name: {name}, containerPort: {port}")), "{name}");
    }
}

/// What `deploy/debian/build` doesn't make is there, and what the package calls a configuration file is in it.
#[test]
fn the_package_names_what_is_there() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest: toml::Table = fs::read_to_string(here.join("Cargo.toml")).unwrap().parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let made = deploy("debian/build");
    let mut installed = Vec::new();
    for asset in deb["assets"].as_array().unwrap() {
        let [from, to] = [0, 1].map(|n| asset[n].as_str().unwrap());
        match from.split_once("target/debian/parts/") {
            Some((_, part)) => {
                let (stem, end) = part.rsplit_once('.').unwrap_or((part.trim_end_matches("/*"), ""));
                assert!(made.contains(&format!("parts/{stem}")) && made.contains(end), "{part} is not made");
            }
            None if name_of(from).starts_with('*') => {
                assert!(here.join(from).parent().unwrap().is_dir(), "{from}");
            }
            None => assert!(here.join(from).is_file(), "{from}"),
        }
        let name = name_of(from);
        installed.push(if to.ends_with('/') { format!("/{to}{name}") } else { format!("/{to}") });
    }
    for file in deb["conf-files"].as_array().unwrap() {
        assert!(installed.iter().any(|path| path == file.as_str().unwrap()), "{file}");
    }
    // The units with the package's paths: what they start is installed.
    let unit = deploy("systemd/wssgate.service").replace("/usr/local/", "/usr/");
    let started = value(&unit, "ExecStart=").split(' ').next().unwrap();
    assert!(installed.iter().any(|path| path == started), "{started}");
    let documentation = value(&unit, "Documentation=file:");
    assert!(installed.iter().any(|path| path == documentation), "{documentation}");
}

#[test]
fn scripts_of_the_package_are_shell() {
    for (shell, script) in [
        ("sh", "postinst"),
        ("sh", "prerm"),
        ("sh", "postrm"),
        ("sh", "certbot-hook"),
        ("sh", "try-inside"),
        ("sh", "try-systemd"),
        ("bash", "build"),
        ("bash", "try"),
        ("bash", "first-page"),
        ("bash", "first-page-inside"),
    ] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/debian").join(script);
        let output = Command::new(shell).arg("-n").arg(file).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
