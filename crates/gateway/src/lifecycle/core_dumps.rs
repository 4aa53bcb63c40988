//! Whether the memory of the process may be dumped: it has keys in it, and at a takeover those of sessions.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tracing::warn;

/// Allows core dumps, and debuggers of the same user (prctl(2), PR_SET_DUMPABLE), or forbids them.
pub(super) fn allow(allowed: bool) {
    let behavior = if allowed { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    if let Err(e) = set_dumpable_behavior(behavior) {
        warn!(cause = %e, "core_dumps can't be set; the system's default holds");
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn what_is_allowed_is_what_the_kernel_knows() {
        for (allowed, known) in [(false, DumpableBehavior::NotDumpable), (true, DumpableBehavior::Dumpable)] {
            allow(allowed);
            assert_eq!(dumpable_behavior().unwrap(), known);
        }
    }
}
