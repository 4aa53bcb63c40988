//! What several views have in common.

use maud::{Markup, html};
use serde_json::json;

use crate::ops::page::shown;
use crate::ops::page::watch::Look;

/// In place of a view that there should be.
pub(super) const CANNOT_SHOW: &str = "this can't be shown at the moment";

/// A view, and what the browser calls it.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) title: String,
    pub(super) main: Markup,
    /// Both as members of a JSON object, for viewers.
    pub(super) members: String,
}

impl Rendered {
    pub(super) fn new(title: String, main: Markup) -> Self {
        let members = format!("\"title\":{},\"main\":{}", json!(title), json!(main.0));
        Self { title, main, members }
    }

    /// There should be one.
    pub(super) fn failed() -> Self {
        Self::new("wssgate".to_owned(), html! { p { (CANNOT_SHOW) } })
    }
}

/// A button that changes something, by the script.
pub(super) fn button(text: &str, command: &str, target: Option<&str>) -> Markup {
    html! { button class="act" data-command=(command) data-target=[target] { (text) } }
}

/// When this was so.
pub(super) fn as_of(look: &Look) -> Markup {
    html! { p class="as-of" { "As of " time datetime=(shown::moment_machine(look.at)) { (shown::moment(look.at)) } } }
}

/// A word that says how something is.
pub(super) fn state(word: &str) -> Markup {
    let class = match word {
        "up" | "served" | "open" => "is-good",
        "down" | "ejected" | "gone" => "is-bad",
        _ => "is-odd",
    };
    html! { span class={ "state " (class) } { (word) } }
}
