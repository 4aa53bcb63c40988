//! What a comparison needs before anything runs: a certificate, limits, the binary of wssgate.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::process::Command;

/// The name that clients ask for.
pub(crate) const HOST: &str = "compare.test";

/// How long the files are that gateways serve; each is called by its length.
pub(crate) const FILE_LENS: [usize; 2] = [1 << 10, 1 << 20];

/// The bytes of a file.
pub(crate) fn content(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// More than this would only make peers reserve memory.
const FILES_MAX: u64 = 65_536;

/// Files of one comparison; they go when it ends.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) bundle: PathBuf,
    /// The directory of the files that are served.
    pub(crate) www: PathBuf,
    /// How many files a process may open.
    pub(crate) files: u64,
}

impl Site {
    /// Makes an ECDSA P-256 certificate and raises the limit on open files.
    pub(crate) fn prepare() -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("wssgate-compare-").context("no temporary directory")?;
        let [chain, key, bundle] = ["chain.pem", "key.pem", "bundle.pem"].map(|name| dir.path().join(name));
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let files = hard.min(FILES_MAX);
        setrlimit(Resource::RLIMIT_NOFILE, files, hard)?;
        let www = dir.path().join("www");
        fs::create_dir(&www)?;
        for len in FILE_LENS {
            fs::write(www.join(len.to_string()), content(len))?;
        }
        let site = Self { dir, chain, key, bundle, www, files };
        site.renew()?;
        Ok(site)
    }

    /// Makes another certificate, in the same files.
    pub(crate) fn renew(&self) -> anyhow::Result<()> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([HOST.to_owned()])?;
        let (certificate, secret) = (cert.pem(), signing_key.serialize_pem());
        let write =
            |path: &Path, text: &str| fs::write(path, text).with_context(|| path.display().to_string());
        write(&self.chain, &certificate)?;
        write(&self.key, &secret)?;
        write(&self.bundle, &(certificate + &secret))
    }
}

/// Which wssgate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As it is released, beside this program.
    Release,
    /// Without its frame scanner, in a target directory of its own.
    Unscanned,
}

/// Builds wssgate.
pub(crate) async fn build_wssgate(kind: Kind) -> anyhow::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let own = env::current_exe()?;
    let (mut command, mut binary) = (Command::new(cargo), own.with_file_name("wssgate"));
    if kind == Kind::Unscanned {
        let target = own.parent().and_then(Path::parent).context("no target directory")?.join("unscanned");
        command.env("RUSTFLAGS", "--cfg unscanned").env("CARGO_TARGET_DIR", &target);
        binary = target.join("release/wssgate");
    }
    let built = command
        // From where we were started, since that is what a relative target directory is relative to.
        .args(["build", "--release", "--package", "wssgate", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"))
        .kill_on_drop(true)
        .status()
        .await
        .context("cargo can't be run; name a binary with --wssgate")?;
    ensure!(built.success(), "wssgate can't be built; name a binary with --wssgate");
    ensure!(binary.is_file(), "no {}; name a binary with --wssgate", binary.display());
    Ok(binary)
}
