//! A client asks for a name that has no certificate: one is ordered, and the client waits for it.

use std::pin::pin;
use std::time::Duration;

use net_io::unix_now;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::Acceptor;
use crate::demand::{Demanded, OrderOnDemand};
use crate::error::AcceptError;
use crate::handshake::{Handshake, Shared};
use crate::permits::Permit;

/// What is left of a handshake's time for the refusal of a client that has waited in vain.
const REFUSAL_TIME: Duration = Duration::from_millis(500);

impl Acceptor {
    /// Goes on when the name that the client asks for has a certificate, or is none that gets one. While it waits for a
    /// certificate, the client has no `permit`, so that it keeps no other client waiting.
    ///
    /// # Errors
    /// [`AcceptError::NoCertificate`], if the client can't have one now; or that it has gone, or has to.
    ///
    /// # Cancel safety
    /// That of [`Handshake::run`].
    pub(super) async fn provide(
        &self,
        on_demand: &dyn OrderOnDemand,
        handshake: &mut Handshake,
        tcp: &mut TcpStream,
        shared: &Shared<'_>,
        permit: Permit,
        deadline: Instant,
    ) -> Result<Permit, AcceptError> {
        let lacking = timeout_at(deadline, self.lacking(handshake, tcp, shared)).await;
        let Some(name) = lacking.unwrap_or(Err(AcceptError::Timeout))? else { return Ok(permit) };
        drop(permit);
        let certificates = &self.template.certificates;
        let ordering = async {
            let mut served = pin!(certificates.answers_for(&name));
            tokio::select! {
                () = &mut served => Demanded::Issued,
                demanded = on_demand.demand(&name) => {
                    if demanded == Demanded::Issued {
                        served.await;
                    }
                    demanded
                }
            }
        };
        let patience = deadline.checked_sub(REFUSAL_TIME).unwrap_or(deadline);
        match timeout_at(patience, ordering).await.unwrap_or(Demanded::Refused) {
            Demanded::Refused => return Err(AcceptError::NoCertificate { server_name: Some(name) }),
            Demanded::Unknown | Demanded::Issued => {}
        }
        let permit = timeout_at(deadline, self.permits.acquire(shared.client)).await;
        permit.map_err(|_| AcceptError::Timeout)
    }

    /// The name that the client asks for, if it has no certificate that is valid, and none is awaited for it.
    async fn lacking(
        &self,
        handshake: &mut Handshake,
        tcp: &mut TcpStream,
        shared: &Shared<'_>,
    ) -> Result<Option<Box<str>>, AcceptError> {
        // An authority that validates a name is no client of it.
        if handshake.is_challenge(tcp, shared).await? {
            return Ok(None);
        }
        let name = handshake.server_name(tcp, shared).await?.flatten();
        let current = self.template.certificates.current();
        let set = &current.loaded.set;
        Ok(name.filter(|name| !set.is_served(name, unix_now()) && !set.awaits(name)))
    }
}
