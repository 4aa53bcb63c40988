//! `wssgate acme try`: every certificate is ordered once, where orders don't count, and thrown away.

use std::time::Instant;

use instant_acme::LetsEncrypt;
use tokio::task::spawn_blocking;

use super::account::Session;
use super::failure::OrderFailure;
use super::order::Wanted;
use super::storage::{Storage, blocking};
use crate::config::acme_settings::LETS_ENCRYPT;
use crate::config::{AcmeSettings, Config};

/// Orders all certificates of `[acme]`, and `say`s what comes of it, line by line. Let's Encrypt is asked for certificates
/// of its staging environment, which has wide limits; other authorities for real ones. The running gateway, which reads
/// the same storage, answers the authority. Returns whether all were issued.
///
/// # Cancel safety
/// A dropped call may leave answers in the storage, which do no harm.
pub async fn try_acme(config: &Config, mut say: impl FnMut(String)) -> bool {
    let Some(settings) = &config.acme else {
        say("the configuration has no [acme]: there is nothing to try".to_owned());
        return false;
    };
    let directory = match &*settings.directory {
        LETS_ENCRYPT => LetsEncrypt::Staging.url().to_owned(),
        other => other.to_owned(),
    };
    let settings = AcmeSettings { directory, ..settings.clone() };
    say(format!(
        "asking {} by {}; the gateway has to be running with this configuration, since it answers the authority",
        settings.directory,
        settings.challenge.as_str()
    ));
    match order_all(&settings, &mut say).await {
        Ok(are_all_issued) => are_all_issued,
        Err(e) => {
            say(format!("FAILED: {e}"));
            false
        }
    }
}

async fn order_all(settings: &AcmeSettings, say: &mut impl FnMut(String)) -> Result<bool, OrderFailure> {
    let root = settings.storage.clone();
    let storage = spawn_blocking(move || Storage::open(&root)).await.map_err(OrderFailure::local)??;
    let Some(_lock) = blocking(&storage, Storage::lock).await? else {
        return Err(OrderFailure::local(
            "a gateway orders a certificate at this moment; try again in a minute",
        ));
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
