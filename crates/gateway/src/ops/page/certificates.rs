//! Certificates with the days that they have left, and why one lost a name to another.

use maud::{Markup, html};

use crate::ops::page::facts::{CertificateInfo, EXPIRY_DAYS, LostInfo};
use crate::ops::page::shown;
use crate::ops::page::table::{number, table, text};

/// Those that are there.
pub(super) fn loaded(certificates: &[CertificateInfo]) -> Markup {
    let columns = [
        text("Names"),
        number("Days left"),
        text("Until"),
        text("Key"),
        text("Issuer"),
        text("Serial"),
        text("Files"),
    ];
    let row = |certificate: &CertificateInfo| {
        vec![
            lines(&certificate.names),
            html! {
                span.bad[certificate.days_left <= EXPIRY_DAYS] { (certificate.days_left) }
                @if certificate.days_left < 0 { span class="bad" { " expired" } }
                @if !certificate.is_valid_yet { span class="bad" { " not valid yet" } }
                @if !certificate.is_served { span class="why" { " not served" } }
            },
            html! { time datetime=(shown::moment_machine(certificate.not_after)) { (shown::moment(certificate.not_after)) } },
            html! { (certificate.key) },
            html! { (certificate.issuer) },
            html! { span class="serial" { (certificate.serial) } },
            lines(&certificate.files),
        ]
    };
    table("Certificates that are loaded", &columns, &certificates.iter().map(row).collect::<Vec<_>>())
}

/// Those that are valid for a name and are not served for it.
pub(super) fn not_served(all: &[LostInfo]) -> Markup {
    let columns = [text("Name"), text("Not served"), text("Because it"), text("Served instead")];
    let rows = all.iter().map(|lost| {
        vec![html! { (lost.name) }, lines(&lost.files), html! { (lost.why) }, lines(&lost.served_instead)]
    });
    table(
        "Certificates that are valid for a name, and lost it to another",
        &columns,
        &rows.collect::<Vec<_>>(),
    )
}

fn lines(texts: &[String]) -> Markup {
    html! { @for (n, text) in texts.iter().enumerate() { @if n > 0 { br; } (text) } }
}
