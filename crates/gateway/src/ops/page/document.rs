//! What stands around each view: the head, the ways to other views, and what the script needs.
//!
//! There is no script and no style inside the page, so that the policy can forbid both.

use maud::{DOCTYPE, Markup, html};

use crate::ops::page::parts::Rendered;

/// What is around a view. Without one, the script asks for the token first.
pub(super) fn document(rendered: Option<&Rendered>, path: &str) -> Markup {
    let title = rendered.map_or("wssgate", |rendered| &rendered.title);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (title) }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/style.css";
                script src="/live.js" defer {}
            }
            body {
                a class="skip" href="#main" { "Skip to the content" }
                header {
                    a class="brand" href="/" { "wssgate" }
                    nav aria-label="Views" {
                        a href="/" aria-current=[(path == "/").then_some("page")] { "Overview" }
                        a href="/sessions" aria-current=[path.starts_with("/sessions").then_some("page")] { "Sessions" }
                    }
                    p id="live" role="status" {}
                }
                main id="main" tabindex="-1" {
                    @match rendered {
                        Some(rendered) => (rendered.main),
                        None => (shell()),
                    }
                }
                footer {
                    p { "wssgate " (env!("CARGO_PKG_VERSION")) " · " a href="/status.json" { "this page as JSON" } " · "
                        a href="/metrics" { "metrics" } }
                    noscript { p { "Without scripts this page shows one moment: reload it for another." } }
                }
                p id="news" class="hidden" role="status" aria-live="polite" {}
                dialog id="token" aria-labelledby="token-title" {
                    form method="dialog" {
                        h2 id="token-title" { "Token" }
                        p { "The token is in the file that " code { "token_file" } " in " code { "[admin]" }
                            " names. It stays in this tab's memory, and is gone when the tab is." }
                        label for="token-text" { "Token" }
                        input id="token-text" type="password" autocomplete="off" required;
                        p class="buttons" {
                            button value="yes" { "Go on" }
                            button value="no" formnovalidate { "Cancel" }
                        }
                    }
                }
                dialog id="sure" aria-labelledby="sure-title" {
                    form method="dialog" {
                        h2 id="sure-title" { "Are you sure?" }
                        p id="sure-text" {}
                        p class="buttons" {
                            button value="yes" class="danger" { "Yes" }
                            button value="no" autofocus { "No" }
                        }
                    }
                }
            }
        }
    }
}

/// In place of a view.
fn shell() -> Markup {
    html! {
        h1 { "This page needs a token" }
        noscript {
            p { "Scripts are off, and only they can ask for the token here. "
                "Programs send it as " code { "Authorization: Bearer …" } ", to " code { "/status.json" } " for instance." }
        }
        p class="needs-script" { button data-token { "Enter the token" } }
    }
}
