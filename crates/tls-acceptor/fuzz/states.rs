//! What must hold for any bytes that are taken for a connection's state. Shared by the fuzz target and the test that
//! replays its corpus.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Waker};

use net_io::Tcp;
use tls_acceptor::{TlsState, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// It is written again as it was read, and the stream that it becomes does nothing worse than to fail, whatever the
/// client sends.
pub(crate) fn tls_state(data: &[u8]) {
    let Ok(state) = TlsState::decode(data) else { return };
    let bytes = state.encode().expect("what was read is written");
    assert!(bytes.len() <= data.len(), "no state is larger than what it was made of");
    let again = TlsState::decode(&bytes).expect("what was written is read");
    assert_eq!(again.encode().expect("what was read is written"), bytes);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let _inside = runtime.enter();
    let (near, mut far) = UnixStream::pair().expect("a pair of sockets");
    near.set_nonblocking(true).expect("a socket");
    far.set_nonblocking(true).expect("a socket");
    let tcp = Tcp::from_std(OwnedFd::from(near).into()).expect("a socket of the runtime");
    let mut stream = TlsStream::thaw(tcp, state);
    let cx = &mut Context::from_waker(Waker::noop());
    for piece in data.chunks(1 + data.len() / 4) {
        let _ = far.write(piece);
        runtime.block_on(tokio::task::yield_now()); // the driver sees it
        for room in [1, 40_000] {
            let _ = Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut vec![0; room]));
        }
        let _ = Pin::new(&mut stream).poll_write(cx, b"answer");
        let _ = Pin::new(&mut stream).poll_flush(cx);
        let _ = far.read(&mut [0; 5000]);
    }
    let _ = Pin::new(&mut stream).poll_shutdown(cx);
    let (_, state) = stream.freeze();
    let bytes = state.encode().expect("it moves on");
    TlsState::decode(&bytes).expect("what was written is read");
}
