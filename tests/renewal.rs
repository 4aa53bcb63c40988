//! Certificates that change on disk, without a signal, under live sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may be blunt, their helpers too"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::apart::apart;
use support::gateway::{Gateway, Setup, config};
use support::pki::{Issued, Order, Pki};
use support::soon;
use support::tls::{Tls, leaf};
use support::ws::WebSocket;

const ECHO: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n";

struct Rig {
    gateway: Gateway,
    pki: Pki,
    /// Opened before anything changes.
    live: WebSocket,
}

fn watching() -> String {
    config("", ECHO).replace("watch = false\n", "")
}

async fn start(lay_out: impl FnOnce(&Pki, &Path)) -> Rig {
    start_with(&watching(), lay_out).await
}

async fn start_with(config: &str, lay_out: impl FnOnce(&Pki, &Path)) -> Rig {
    let setup = Setup::new(env!("CARGO_BIN_EXE_wssgate"));
    let pki = Pki::new();
    fs::create_dir(setup.path().join("certs")).unwrap();
    lay_out(&pki, setup.path());
    let gateway = setup.start(config);
    let io = Tls::new("default.test", &["http/1.1"]).connect(gateway.address()).await.unwrap();
    let live = WebSocket::connect(io, "default.test", "/", "").await.unwrap().0;
    Rig { gateway, pki, live }
}

impl Rig {
    fn path(&self, file: &str) -> PathBuf {
        self.gateway.path().join(file)
    }

    async fn serves(&self, name: &str, issued: &Issued) {
        let stream = Tls::new(name, &[]).connect(self.gateway.address()).await.unwrap();
        assert_eq!(leaf(&stream), issued.der, "{name}");
    }

    /// The certificate of `default.test` was renewed, the `n`th time.
    async fn has_renewed(&mut self, n: usize, issued: &Issued) {
        self.gateway.wait_for(|line| line["names_replaced"] == "default.test", n, "a renewal");
        self.serves("default.test", issued).await;
        self.live.echoes("still here").await;
    }

    /// The `n`th complaint with these words.
    #[track_caller]
    fn complains(&self, words: &str, n: usize) {
        let is_it = |line: &Value| {
            line["message"] == "certificates" && line["problem"].as_str().unwrap().contains(words)
        };
        self.gateway.wait_for(is_it, n, words);
    }
}

fn flat(pki: &Pki, path: &Path) {
    replace(&pki.issue(&["default.test"]), &path.join("certs"), "default");
}

/// Chain and key in one file, written aside, then renamed: no moment is in between.
fn replace(issued: &Issued, directory: &Path, name: &str) {
    fs::create_dir_all(directory).unwrap();
    let aside = directory.join(".aside");
    fs::write(&aside, issued.fullchain.clone() + &issued.key).unwrap();
    fs::rename(aside, directory.join(format!("{name}.pem"))).unwrap();
}

#[tokio::test]
async fn files_that_are_renamed_or_written_in_place() {
    let mut rig = start(flat).await;
    for n in 0..4 {
        let issued = rig.pki.issue(&["default.test"]);
        if n % 2 == 0 {
            replace(&issued, &rig.path("certs"), "default");
        } else {
            fs::write(rig.path("certs/default.pem"), issued.fullchain.clone() + &issued.key).unwrap();
        }
        rig.has_renewed(n, &issued).await;
    }
}

#[tokio::test]
async fn links_as_certbot_swaps_them() {
    fn lineage(issued: &Issued, path: &Path, n: usize) {
        let (live, archive) = (path.join("live/default.test"), path.join("archive/default.test"));
        fs::create_dir_all(&live).unwrap();
        fs::create_dir_all(&archive).unwrap();
        for (kind, text) in [("fullchain", &issued.fullchain), ("privkey", &issued.key)] {
            fs::write(archive.join(format!("{kind}{n}.pem")), text).unwrap();
            let _ = fs::remove_file(live.join(format!("{kind}.pem")));
            let target = format!("../../archive/default.test/{kind}{n}.pem");
            symlink(target, live.join(format!("{kind}.pem"))).unwrap();
        }
    }
    let live = watching().replace("\"certs\"", "\"live\"");
    let mut rig = start_with(&live, |pki, path| lineage(&pki.issue(&["default.test"]), path, 1)).await;
    for n in 0..3 {
        let issued = rig.pki.issue(&["default.test"]);
        lineage(&issued, rig.gateway.path(), n + 2);
        rig.has_renewed(n, &issued).await;
    }
    // Where the links lead to, far from the directory, is watched as well.
    let issued = rig.pki.issue(&["default.test"]);
    fs::write(rig.path("archive/default.test/fullchain4.pem"), &issued.fullchain).unwrap();
    fs::write(rig.path("archive/default.test/privkey4.pem"), &issued.key).unwrap();
    rig.has_renewed(3, &issued).await;
}

#[tokio::test]
async fn links_as_kubernetes_swaps_them() {
    fn publish(issued: &Issued, certs: &Path, n: usize) {
        let data = certs.join(format!("..{n}"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("tls.crt"), &issued.fullchain).unwrap();
        fs::write(data.join("tls.key"), &issued.key).unwrap();
        symlink(format!("..{n}"), certs.join("..data_tmp")).unwrap();
        fs::rename(certs.join("..data_tmp"), certs.join("..data")).unwrap();
        if n > 0 {
            fs::remove_dir_all(certs.join(format!("..{}", n - 1))).unwrap();
        }
    }
    let mut rig = start(|pki, path| {
        let certs = path.join("certs");
        publish(&pki.issue(&["default.test"]), &certs, 0);
        symlink("..data/tls.crt", certs.join("tls.crt")).unwrap();
        symlink("..data/tls.key", certs.join("tls.key")).unwrap();
    })
    .await;
    for n in 0..3 {
        let issued = rig.pki.issue(&["default.test"]);
        publish(&issued, &rig.path("certs"), n + 1);
        rig.has_renewed(n, &issued).await;
    }
}

#[tokio::test]
async fn half_a_pair_is_never_served() {
    let mut before = None;
    let mut rig = start(|pki, path| {
        let issued = pki.issue(&["default.test"]);
        issued.write(&path.join("certs"), "default");
        before = Some(issued);
    })
    .await;
    let (before, issued) = (before.unwrap(), rig.pki.issue(&["default.test"]));
    fs::write(rig.path("certs/default.crt"), &issued.fullchain).unwrap();
    // The file is not completed: that is logged, and the last good one is served.
    rig.complains("stays in use", 0);
    rig.serves("default.test", &before).await;
    // Half a file, too.
    fs::write(rig.path("certs/default.key"), &issued.key[..40]).unwrap();
    rig.complains("not valid PEM", 0);
    rig.serves("default.test", &before).await;
    fs::write(rig.path("certs/default.key"), &issued.key).unwrap();
    rig.has_renewed(0, &issued).await;
}

#[tokio::test]
async fn names_come_and_go() {
    let mut rig = start(flat).await;
    let more = rig.pki.issue(&["more.test"]);
    more.write(&rig.path("certs/below/and/deeper"), "more");
    assert_eq!(rig.gateway.wait("renewed")["names_added"], "more.test");
    rig.serves("more.test", &more).await;
    fs::remove_dir_all(rig.path("certs/below")).unwrap();
    let line = rig.gateway.wait_for(|line| line["names_removed"] == "more.test", 0, "a removal");
    assert_eq!(line["names_unchanged"], 1);
    let stream = Tls::new("more.test", &[]).connect(rig.gateway.address()).await.unwrap();
    assert_ne!(leaf(&stream), more.der);
    // The last of all stays: a gateway without any certificate is useless.
    fs::remove_file(rig.path("certs/default.pem")).unwrap();
    let line = rig.gateway.wait("renewal refused: the last good certificates stay in use");
    assert!(line["problem"].as_str().unwrap().contains("no certificate was found"), "{line}");
    rig.live.echoes("still here").await;
    let back = rig.pki.issue(&["default.test"]);
    replace(&back, &rig.path("certs"), "default");
    rig.has_renewed(0, &back).await;
}

#[tokio::test]
async fn the_default_stays_and_delays_no_other_certificate() {
    let mut rig = start(|pki, path| {
        flat(pki, path);
        replace(&pki.issue(&["other.test"]), &path.join("certs"), "other");
    })
    .await;
    fs::remove_file(rig.path("certs/default.pem")).unwrap();
    rig.complains("stays in use", 0);
    let other = rig.pki.issue(&["other.test"]);
    replace(&other, &rig.path("certs"), "other");
    let line = rig.gateway.wait_for(|line| line["names_replaced"] == "other.test", 0, "the renewal");
    assert_eq!(line["names_kept"], "default.test");
    rig.serves("other.test", &other).await;
    assert!(Tls::new("default.test", &[]).connect(rig.gateway.address()).await.is_ok());
    rig.live.echoes("still here").await;
}

#[tokio::test]
async fn a_directory_that_vanishes_and_comes_back() {
    let mut rig = start(flat).await;
    for n in 0..2 {
        fs::rename(rig.path("certs"), rig.path(&format!("away{n}"))).unwrap();
        rig.complains("can't be read", n);
        assert!(Tls::new("default.test", &[]).connect(rig.gateway.address()).await.is_ok());
        rig.live.echoes("still here").await;
        // Another directory of that name comes, and is watched in turn.
        for again in 0..2 {
            let issued = rig.pki.issue(&["default.test"]);
            replace(&issued, &rig.path("certs"), "default");
            rig.has_renewed(2 * n + again, &issued).await;
        }
    }
}

#[tokio::test]
async fn a_directory_that_is_a_link() {
    let mut rig = start(|pki, path| {
        replace(&pki.issue(&["default.test"]), &path.join("one"), "default");
        fs::remove_dir(path.join("certs")).unwrap();
        symlink("one", path.join("certs")).unwrap();
    })
    .await;
    let issued = rig.pki.issue(&["default.test"]);
    replace(&issued, &rig.path("two"), "default");
    symlink("two", rig.path("swap")).unwrap();
    fs::rename(rig.path("swap"), rig.path("certs")).unwrap();
    rig.has_renewed(0, &issued).await;
    let issued = rig.pki.issue(&["default.test"]);
    replace(&issued, &rig.path("two"), "default");
    rig.has_renewed(1, &issued).await;
}

#[tokio::test]
async fn certificates_alone_are_renewed_and_nothing_is_said_of_nothing() {
    let mut rig = start(flat).await;
    rig.gateway.write_config("this is [[ no configuration");
    // The same bytes again, an unrelated file, a hidden one.
    let certs = rig.path("certs");
    fs::copy(certs.join("default.pem"), certs.join(".aside")).unwrap();
    fs::rename(certs.join(".aside"), certs.join("default.pem")).unwrap();
    fs::write(certs.join("README.txt"), "not for us").unwrap();
    fs::write(certs.join(".hidden.pem"), "not for us").unwrap();
    let issued = rig.pki.issue(&["default.test"]);
    replace(&issued, &certs, "default");
    rig.has_renewed(0, &issued).await;
    assert_eq!(rig.gateway.lines("certificates").len(), 0, "{}", rig.gateway.log());
    assert_eq!(rig.gateway.lines("renewed").len(), 1);
    assert_eq!(rig.gateway.reload()["message"], "reload refused: the old generation stays in use");
    // A refused reload leaves the watch as it was.
    let issued = rig.pki.issue(&["default.test"]);
    replace(&issued, &certs, "default");
    rig.has_renewed(1, &issued).await;
    // The next reload counts on.
    rig.gateway.write_config(&watching());
    assert_eq!(rig.gateway.reload()["generation"], 4);
}

#[tokio::test]
async fn named_certificates_are_watched_if_that_is_wanted() {
    const NAMED: &str = "[certificates]\ndefault = \"default.test\"\nwatch = true\n\
        [[certificate]]\nchain = \"named/a.pem\"\nkey = \"keys/a.pem\"\n\
        [[certificate]]\nchain = \"named/b.pem\"\nkey = \"keys/b.pem\"\n";
    let config =
        watching().replace("[certificates]\ndirectory = \"certs\"\ndefault = \"default.test\"\n", NAMED);
    let write = |issued: &Issued, path: &Path, name: &str| {
        fs::create_dir_all(path.join("named")).unwrap();
        fs::create_dir_all(path.join("keys")).unwrap();
        fs::write(path.join(format!("named/{name}.pem")), &issued.fullchain).unwrap();
        fs::write(path.join(format!("keys/{name}.pem")), &issued.key).unwrap();
    };
    let mut rig = start_with(&config, |pki, path| {
        write(&pki.issue(&["default.test"]), path, "a");
        write(&pki.issue(&["b.test"]), path, "b");
    })
    .await;
    let issued = rig.pki.issue(&["default.test"]);
    write(&issued, rig.gateway.path(), "a");
    rig.has_renewed(0, &issued).await;
    // One that is broken holds up no other.
    fs::write(rig.path("named/b.pem"), "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    rig.complains("b.pem", 0);
    let issued = rig.pki.issue(&["default.test"]);
    write(&issued, rig.gateway.path(), "a");
    let line = rig.gateway.wait_for(|line| line["names_replaced"] == "default.test", 1, "the renewal");
    assert_eq!(line["names_kept"], "b.test");
    rig.serves("default.test", &issued).await;
}

#[tokio::test]
async fn who_does_not_watch_waits_for_the_signal() {
    let mut rig = start(flat).await;
    let certs = format!("\"{}\"", rig.path("certs").display());
    let deaf = config("", ECHO).replace("\"certs\"", &certs);
    let deaf = Setup::new(env!("CARGO_BIN_EXE_wssgate")).start(&deaf);
    let issued = rig.pki.issue(&["default.test"]);
    replace(&issued, &rig.path("certs"), "default");
    rig.has_renewed(0, &issued).await;
    assert_eq!(deaf.lines("renewed").len(), 0);
    assert_eq!(deaf.reload()["names_replaced"], "default.test");
    // A reload begins and ends the watch, and moves it.
    deaf.write_config(&watching().replace("\"certs\"", &certs));
    assert_eq!(deaf.reload()["message"], "reloaded");
    let issued = rig.pki.issue(&["default.test"]);
    replace(&issued, &rig.path("certs"), "default");
    assert_eq!(deaf.wait("renewed")["names_replaced"], "default.test");
    rig.has_renewed(1, &issued).await;
    replace(&rig.pki.issue(&["default.test"]), &deaf.path().join("certs"), "default");
    deaf.write_config(&watching());
    assert_eq!(deaf.reload()["names_replaced"], "default.test");
    let issued = rig.pki.issue(&["default.test"]);
    replace(&issued, &deaf.path().join("certs"), "default");
    assert_eq!(deaf.wait_nth("renewed", 1)["names_replaced"], "default.test");
}

#[tokio::test]
async fn live_sockets_and_resumption_go_on_through_many_renewals() {
    let mut rig = start(flat).await;
    let certs = rig.path("certs");
    let resuming = Tls::new("default.test", &["http/1.1"]);
    let mut sockets = Vec::new();
    for _ in 0..50 {
        let io = resuming.connect(rig.gateway.address()).await.unwrap();
        sockets.push(WebSocket::connect(io, "default.test", "/", "").await.unwrap().0);
    }
    for n in 0..5 {
        let issued = rig.pki.issue(&["default.test"]);
        replace(&issued, &certs, "default");
        rig.has_renewed(n, &issued).await;
        for socket in &mut sockets {
            soon(socket.echoes("still here")).await;
        }
        let stream = resuming.connect(rig.gateway.address()).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    }
}

/// A system without free inotify instances, in a user namespace of its own, so that other tests have theirs.
#[test]
fn without_inotify_files_are_looked_at() {
    let ways: [&[&str]; 1] = [&["--user", "--map-root-user"]];
    let none_left = "echo 0 > /proc/sys/user/max_inotify_instances";
    if apart("without_inotify_files_are_looked_at", &ways, none_left).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(looked_at());
    }
}

async fn looked_at() {
    const BLIND: &str =
        "certificate files can't be watched for changes; they are checked at intervals instead";
    let mut rig = start(flat).await;
    let line = rig.gateway.wait(BLIND);
    let cause = line["cause"].as_str().unwrap();
    assert!(
        cause.contains("inotify can't be used") && cause.contains("fs.inotify.max_user_instances"),
        "{line}"
    );
    let mut took = Vec::new();
    for n in 0..5 {
        let issued = rig.pki.issue(&["default.test"]);
        let begun = Instant::now();
        replace(&issued, &rig.path("certs"), "default");
        rig.has_renewed(n, &issued).await;
        took.push(begun.elapsed());
    }
    // One may have met a busy machine.
    took.sort_unstable();
    assert!(took[2] < Duration::from_secs(2), "{took:?}");
    // Half a pair has its second, and is told.
    fs::write(rig.path("certs/default.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    rig.complains("stays in use", 0);
    let issued = rig.pki.issue(&["default.test"]);
    replace(&issued, &rig.path("certs"), "default");
    rig.has_renewed(5, &issued).await;
    // It stays so through reloads, and is said once.
    assert_eq!(rig.gateway.reload()["names_unchanged"], 1);
    let issued = rig.pki.issue(&["default.test"]);
    replace(&issued, &rig.path("certs"), "default");
    rig.has_renewed(6, &issued).await;
    assert_eq!(rig.gateway.lines(BLIND).len(), 1);
}

#[tokio::test]
async fn a_near_expiry_is_logged() {
    let mut rig = start(|pki, path| {
        let certs = path.join("certs");
        let until = |days| Order { from_days: -90, until_days: days, ..Order::new(&["default.test"]) };
        replace(&pki.issue_as(&until(13)), &certs, "default");
        replace(&pki.issue_as(&Order { names: vec!["old.test".into()], ..until(-3) }), &certs, "old");
    })
    .await;
    let line = rig.gateway.wait("a certificate expires");
    // The same second would make it 13.
    assert!(line["level"] == "WARN" && (12..=13).contains(&line["days_left"].as_i64().unwrap()), "{line}");
    assert!(line["problem"].as_str().unwrap().contains("default.test expires in 1"), "{line}");
    let line = rig.gateway.wait("a certificate has expired");
    assert_eq!(line["level"], "ERROR");
    // A renewal that brings another one that ends soon is told; what was told is not told again.
    let short = Order { until_days: 2, ..Order::new(&["default.test"]) };
    let issued = rig.pki.issue_as(&short);
    replace(&issued, &rig.path("certs"), "default");
    rig.has_renewed(0, &issued).await;
    rig.gateway.reload();
    assert_eq!(rig.gateway.lines("a certificate expires").len(), 2);
    assert_eq!(rig.gateway.lines("a certificate has expired").len(), 1);
}
