//! `wssgate acme try`: every certificate is ordered once, where orders don't count, and thrown away.

use std::time::{Duration, Instant};

use instant_acme::LetsEncrypt;
use tls_acceptor::CertName;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::account::Session;
use super::failure::OrderFailure;
use super::order::Wanted;
use super::permission::Permission;
use super::storage::{Storage, blocking};
use crate::config::acme_settings::LETS_ENCRYPT;
use crate::config::{AcmeSettings, Config};

/// How long an order of a gateway is waited for, and how often it is looked whether it has ended.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// Orders all certificates of `[acme]`, and `say`s what comes of it, line by line. Let's Encrypt is asked for certificates
/// of its staging environment, which has wide limits; other authorities for real ones. The running gateway, which reads
/// the same storage, answers the authority. With `names`, only their certificates are ordered, also those of
/// `[acme.on_demand]`, which are not known before a client asks for them. Returns whether all of it was issued, and something.
///
/// # Cancel safety
/// A dropped call may leave answers in the storage, which do no harm.
pub async fn try_acme(config: &Config, names: &[String], mut say: impl FnMut(String)) -> bool {
    let Some(settings) = &config.acme else {
        say("the configuration has no [acme]: there is nothing to try. Write [acme] with names".to_owned());
        return false;
    };
    let mut are_all_issued = true;
    let certificates = match names {
        [] => settings.certificates.clone(),
        names => {
            let (certificates, refusals) = chosen(settings, names).await;
            are_all_issued = refusals.is_empty();
            refusals.into_iter().for_each(&mut say);
            certificates
        }
    };
    if names.is_empty() && settings.on_demand.is_some() {
        say("names of [acme.on_demand] are ordered when a client asks for them; to try one of them: wssgate acme try \
             --name NAME"
            .to_owned());
    }
    if certificates.is_empty() {
        say("FAILED: nothing was ordered".to_owned());
        return false;
    }
    let directory = match &*settings.directory {
        LETS_ENCRYPT => LetsEncrypt::Staging.url().to_owned(),
        other => other.to_owned(),
    };
    let settings = AcmeSettings { directory, certificates, ..settings.clone() };
    say(format!(
        "asking {} by {}; the gateway has to be running with this configuration, since it answers the authority",
        settings.directory,
        settings.challenge.as_str()
    ));
    match order_all(&settings, &mut say).await {
        Ok(are_issued) => are_issued && are_all_issued,
        Err(e) => {
            say(format!("FAILED: {e}"));
            false
        }
    }
}

/// The certificates that have these names, and a line for each name that has none.
async fn chosen(settings: &AcmeSettings, names: &[String]) -> (Vec<Vec<CertName>>, Vec<String>) {
    let permission =
        settings.on_demand.clone().map(|on_demand| (on_demand.allowed.clone(), Permission::new(on_demand)));
    let (mut certificates, mut refusals) = (Vec::new(), Vec::new());
    for text in names {
        let name = CertName::Exact(text.as_str().into());
        let configured = settings.certificates.iter().find(|names| names.contains(&name));
        let certificate = match (configured, &permission) {
            (Some(names), _) => Ok(names.clone()),
            (None, Some((allowed, permission))) if allowed.allows(text) => {
                match permission.is_given(text).await {
                    Ok(true) => Ok(vec![name]),
                    Ok(false) => Err("ask of [acme.on_demand] does not allow the name".to_owned()),
                    Err(cause) => Err(format!(
                        "ask of [acme.on_demand] does not say whether the name is allowed: {cause}"
                    )),
                }
            }
            (None, Some(_)) => Err("names of [acme] and [acme.on_demand] don't have it".to_owned()),
            (None, None) => Err("names of [acme] don't have it".to_owned()),
        };
        match certificate {
            Ok(names) if certificates.contains(&names) => {}
            Ok(names) => certificates.push(names),
            Err(what) => refusals.push(format!("FAILED: {text}: {what}")),
        }
    }
    (certificates, refusals)
}

async fn order_all(settings: &AcmeSettings, say: &mut impl FnMut(String)) -> Result<bool, OrderFailure> {
    let root = settings.storage.clone();
    let storage = spawn_blocking(move || Storage::open(&root)).await.map_err(OrderFailure::local)??;
    let patience_end = Instant::now() + LOCK_WAIT;
    let _lock = loop {
        match blocking(&storage, Storage::lock).await? {
            Some(lock) => break lock,
            None if Instant::now() < patience_end => sleep(LOCK_INTERVAL).await,
            None => {
                return Err(OrderFailure::local(
                    "a gateway orders a certificate at this moment; try again in a minute",
                ));
            }
        }
    };
    let session = Session::begin(settings, &storage).await?;
    let mut are_all_issued = true;
    for names in &settings.certificates {
        let started = Instant::now();
        let wanted = Wanted { settings, storage: &storage, names, replaces: None, is_kept: false };
        let result = wanted.obtain(&session).await;
        let names = AcmeSettings::texts(names).join(" ");
        say(match &result {
            Ok(_) => {
                format!("ok: {names}: issued after {:.1} s, and thrown away", started.elapsed().as_secs_f64())
            }
            Err(e) => format!("FAILED: {names}: {e}"),
        });
        are_all_issued &= result.is_ok();
    }
    Ok(are_all_issued)
}
