//! What messages notice of scrapes: of a page with all that a thousand routes have counted, asked for again and again.

use std::time::{Duration, Instant};

use support::full_size;
use support::gateway::{Gateway, Setup, config};
use support::http1::ask;
use support::swarm::{Clients, Plan, SERVER_NAME};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use super::WSSGATE;

const ROUTES: usize = 1000;

pub(super) fn scraped_routes() {
    let (sockets, per_second, seconds) = if full_size() { (2000, 2000, 20) } else { (100, 500, 2) };
    let setup = Setup::new(WSSGATE).with_certificate(&[SERVER_NAME]);
    let mut routes = "[admin]\naddress = \"127.0.0.3:0\"\n".to_owned();
    for n in 0..ROUTES {
        routes += &format!("[[route]]\npath = \"/{n}\"\nservice = \"echo\"\n");
    }
    let gateway = setup.start(&config("", &routes));
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(use_each_route(&gateway));
    let plan =
        Plan { gateway: gateway.address(), path: "/7", sockets, first_source: 0, per_second, mixed: false };
    let mut clients = Clients::start(plan);
    clients.connected();
    clients.go_on();

    let window = Duration::from_secs(seconds);
    clients.seen();
    std::thread::sleep(window);
    let quiet = clients.seen();
    let (mut scrapes, mut len, begun) = (0, 0, Instant::now());
    while begun.elapsed() < window {
        len = runtime.block_on(scrape(&gateway));
        scrapes += 1;
    }
    let scraped = clients.seen();
    eprintln!(
        "{ROUTES} routes, {per_second} messages a second: at worst {:?}, 99.9 % within {:?}; during {scrapes} scrapes of \
         {len} bytes, one after the other: at worst {:?}, 99.9 % within {:?}",
        quiet.worst, quiet.p999, scraped.worst, scraped.p999
    );
    let end = clients.stop();
    assert_eq!((end.wrong, end.sent), (Vec::new(), end.echoed));
    assert!(scrapes > 1);
    if full_size() {
        assert!(scraped.p999 <= quiet.p999 + Duration::from_millis(50), "{:?}", scraped.p999);
    }
}

/// One that was not used has hardly a line.
async fn use_each_route(gateway: &Gateway) {
    let mut io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    for n in 0..ROUTES {
        let request = format!("GET /{n} HTTP/1.1\r\nHost: {SERVER_NAME}\r\n\r\n");
        assert_eq!(ask(&mut io, request).await.status(), 426);
    }
}

/// Returns how long the page is.
async fn scrape(gateway: &Gateway) -> usize {
    let mut io = TcpStream::connect(gateway.admin()).await.unwrap();
    let page = ask(&mut io, "GET /metrics HTTP/1.1\r\nHost: admin\r\n\r\n").await;
    assert_eq!(page.status(), 200);
    page.text().len()
}
