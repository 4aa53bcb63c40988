//! Errors on their way to the log.

/// Whatever keeps a body from going on.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error with its causes, on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
