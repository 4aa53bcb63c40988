//! A way from a client to the gateway that can be cut: from then on bytes vanish, and neither side
//! is told.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Two network namespaces with a cable between: one of the calling thread, one of the client.
#[derive(Debug)]
pub struct Namespaces {
    orders: Sender<Order>,
}

enum Order {
    Connect(SocketAddr, Sender<std::net::TcpStream>),
    Cut(Sender<()>),
}

impl Namespaces {
    /// Where the gateway has to listen.
    pub const GATEWAY: &str = "10.77.0.1";
    const CLIENT: &str = "10.77.0.2/24";

    /// Puts the calling thread, and what it starts from now on, into a network namespace of its
    /// own; `None` if it may not.
    #[must_use]
    pub fn enter() -> Option<Self> {
        unshare(CloneFlags::CLONE_NEWNET).ok()?;
        ip(&["link", "set", "lo", "up"])?;
        ip(&["link", "add", "edge", "type", "veth", "peer", "name", "far"])?;
        let (orders, inbox) = channel::<Order>();
        let (tell, told) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(gettid()).unwrap();
            for order in inbox {
                match order {
                    Order::Connect(address, answer) => {
                        ip(&["addr", "replace", Self::CLIENT, "dev", "far"]).unwrap();
                        ip(&["link", "set", "far", "up"]).unwrap();
                        let _ = answer.send(std::net::TcpStream::connect(address).unwrap());
                    }
                    // What arrives is dropped, and nothing can leave.
                    Order::Cut(answer) => {
                        ip(&["addr", "flush", "dev", "far"]).unwrap();
                        let _ = answer.send(());
                    }
                }
            }
        });
        let client = told.recv().unwrap().to_string();
        ip(&["link", "set", "far", "netns", &client])?;
        ip(&["addr", "add", &format!("{}/24", Self::GATEWAY), "dev", "edge"])?;
        ip(&["link", "set", "edge", "up"])?;
        Some(Self { orders })
    }

    /// A client's connection.
    #[must_use]
    pub fn connect(&self, address: SocketAddr) -> TcpStream {
        let (answer, answered) = channel();
        self.orders.send(Order::Connect(address, answer)).unwrap();
        let tcp = answered.recv().unwrap();
        tcp.set_nonblocking(true).unwrap();
        TcpStream::from_std(tcp).unwrap()
    }

    /// Cuts the cable.
    pub fn cut(&self) {
        let (answer, answered) = channel();
        self.orders.send(Order::Cut(answer)).unwrap();
        answered.recv().unwrap();
    }
}

/// Runs `ip`, without which there are no namespaces worth the name.
fn ip(arguments: &[&str]) -> Option<()> {
    Command::new("ip").args(arguments).status().ok()?.success().then_some(())
}

/// A way that every user may set up: a relay that drops what it reads.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    whole: watch::Sender<bool>,
}

impl Relay {
    /// A way to `gateway`.
    pub async fn start(gateway: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (whole, is_whole) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(gateway).await.unwrap();
                let ((near_read, near_write), (far_read, far_write)) =
                    (tokio::io::split(near), tokio::io::split(far));
                tokio::spawn(carry(near_read, far_write, is_whole.clone()));
                tokio::spawn(carry(far_read, near_write, is_whole.clone()));
            }
        });
        Self { address, whole }
    }

    /// A client's connection.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Cuts it.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }
}

async fn carry(mut from: ReadHalf<TcpStream>, mut to: WriteHalf<TcpStream>, is_whole: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if *is_whole.borrow() && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    if !*is_whole.borrow() {
        std::future::pending::<()>().await; // not even an end gets through
    }
}
