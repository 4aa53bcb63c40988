//! The string by which a live session can be ended from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Context;

use atomic_waker::AtomicWaker;

/// How a session is to end. Later orders are harsher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manner {
    /// Finish the messages in flight, then close.
    AfterMessages,
    /// Close between two frames if the bytes sent so far allow it, else cut.
    Now,
}

/// An order to end: the close code both peers are told, and the manner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The close code, for instance 1001.
    pub code: u16,
    /// How soon.
    pub manner: Manner,
}

/// Shared by a session and whoever may end it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Control(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// 0: no order; else the code, and above it the manner.
    order: AtomicU32,
    waker: AtomicWaker,
}

const NOW: u32 = 1 << 16;

impl Control {
    /// A session that nobody has asked to end.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the session to end. A harsher order replaces a milder one, never the other way round.
    pub fn end(&self, order: Order) {
        let word = u32::from(order.code) | if order.manner == Manner::Now { NOW } else { 0 };
        // The first code stays, so that both peers are told the same.
        let _ = self.0.order.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| match old {
            0 => Some(word),
            old if word & NOW > old & NOW => Some(old | NOW),
            _ => None,
        });
        self.0.waker.wake();
    }

    /// The order in force. The task of `cx` is woken when it changes.
    pub fn poll(&self, cx: &Context<'_>) -> Option<Order> {
        self.0.waker.register(cx.waker());
        self.order()
    }

    /// The order in force.
    #[must_use]
    pub fn order(&self) -> Option<Order> {
        let word = self.0.order.load(Ordering::Acquire);
        let code = u16::try_from(word & 0xFFFF).ok().filter(|&code| code != 0)?;
        Some(Order { code, manner: if word & NOW == 0 { Manner::AfterMessages } else { Manner::Now } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_only_get_harsher() {
        let control = Control::new();
        assert_eq!(control.order(), None);
        let gentle = Order { code: 1001, manner: Manner::AfterMessages };
        control.end(gentle);
        assert_eq!(control.order(), Some(gentle));
        control.end(Order { code: 1012, manner: Manner::AfterMessages });
        assert_eq!(control.order(), Some(gentle));
        control.end(Order { code: 1012, manner: Manner::Now });
        assert_eq!(control.order(), Some(Order { code: 1001, manner: Manner::Now }));
        control.end(gentle);
        assert_eq!(control.order(), Some(Order { code: 1001, manner: Manner::Now }));
    }
}
