//! `SSLCertificateFile`, and what clients have to show.

use super::context::Context;
use super::vhost::Vhost;
use crate::import::book::Outcome;
use crate::import::sheet::Section;
use crate::import::tree::Directive;

/// Writes the certificates of a virtual host, those that are there already but once.
pub(super) fn write<'a>(context: &mut Context<'a>, found: &mut Vhost<'a>) {
    let (chains, keys) =
        (found.scope.nearest("sslcertificatefile"), found.scope.nearest("sslcertificatekeyfile"));
    let issuers = found.scope.find("sslcertificatechainfile");
    if chains.is_empty() {
        // Rules for clients belong to a certificate.
        clients(context, found, &mut Section::default());
    }
    for (number, chain) in chains.iter().enumerate() {
        let mut section = Section::new("[[certificate]]");
        // The key may be in the file of the certificate.
        let key = keys.get(number).unwrap_or(chain);
        let paths = (context.path(chain.arg(0)), context.path(key.arg(0)));
        let (Some(chain_file), Some(key_file)) = paths else {
            let meaning = "the name of the file has a variable: write the certificate";
            [chain, key].iter().for_each(|d| context.book.misses(&mut context.site.certificates, d, meaning));
            clients(context, found, &mut section);
            continue;
        };
        let mut files = vec![chain_file];
        if let Some(issuers) = issuers {
            files.extend(context.path(issuers.arg(0)));
            context.book.mark(issuers, Outcome::Key);
        }
        context.book.key(&mut section, chain, "chain", files);
        context.book.key(&mut section, key, "key", key_file);
        clients(context, found, &mut section);
        add(context, chain, section);
    }
    let name = found.hosts.iter().find(|host| !host.starts_with('*'));
    if let Some(name) =
        name.filter(|_| !chains.is_empty() && context.site.certificates.get("default").is_none())
    {
        context.site.certificates.set("default", name.clone(), None);
    }
}

/// What clients have to show; what has no counterpart is noted as lost.
fn clients<'a>(context: &mut Context<'a>, found: &mut Vhost<'a>, section: &mut Section) {
    let scope = &found.scope;
    let Some(verify) = scope.find("sslverifyclient") else { return };
    let book = &mut context.book;
    let word = verify.arg(0).to_ascii_lowercase();
    if word == "none" {
        return book.itself(section, verify, "clients need no certificate");
    }
    let ca = scope.find("sslcacertificatefile").filter(|ca| !ca.arg(0).contains("${"));
    let Some(ca) =
        ca.filter(|_| matches!(word.as_str(), "require" | "optional") && section.get("chain").is_some())
    else {
        if word == "require" {
            found.lost.push(verify);
        } else {
            book.misses(
                section,
                verify,
                "certificates of clients are checked by a file with their authorities, or not asked for",
            );
        }
        return;
    };
    let file = context.root.join(ca.arg(0)).display().to_string();
    book.key(section, ca, "client_auth.ca", file);
    book.key(section, verify, "client_auth.required", word == "require");
    if let Some(crl) = scope.find("sslcarevocationfile") {
        let file = context.root.join(crl.arg(0)).display().to_string();
        book.key(section, crl, "client_auth.crl", file);
    }
    if let Some(path) = scope.find("sslcacertificatepath") {
        book.misses(section, path, "authorities are in files: add those of the directory to client_auth.ca");
    }
}

/// Adds a certificate. One that is there gets the stricter rules of the two.
fn add(context: &mut Context<'_>, chain: &Directive, section: Section) {
    let is_same = |other: &&mut Section| {
        other.get("chain") == section.get("chain") && other.get("key") == section.get("key")
    };
    let Some(other) = context.site.named_certificates.iter_mut().find(is_same) else {
        return context.site.named_certificates.push(section);
    };
    let rules = ["client_auth.ca", "client_auth.required", "client_auth.crl"];
    if rules.iter().all(|key| other.get(key) == section.get(key)) {
        return;
    }
    let meaning = "another virtual host has the same certificate with other rules for clients' certificates, of which there \
                   is one set for a certificate here: the stricter are written, for all of them";
    context.book.remark(chain, meaning);
    other.note(format!("{}: {meaning}", chain.at));
    other.unset("client_auth.required");
    for key in ["client_auth.ca", "client_auth.crl"] {
        if let Some(value) = section.get(key).filter(|_| other.get(key).is_none()) {
            other.set(key, value.clone(), None);
        }
    }
}
