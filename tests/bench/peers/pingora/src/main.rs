use async_trait::async_trait;
use pingora_core::apps::HttpServerOptions;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::protocols::ALPN;
use pingora_core::server::configuration::{Opt, ServerConf};
use pingora_core::server::Server;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::Result;
use pingora_proxy::{http_proxy_service, ProxyHttp, Session};

struct Relay {
    upstream: String,
    h2: bool,
    routes: Vec<String>,
}

#[async_trait]
impl ProxyHttp for Relay {
    type CTX = ();
    fn new_ctx(&self) {}
    async fn upstream_peer(&self, session: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        if !self.routes.is_empty() {
            // Ordered first-match prefix routes, the obvious way.
            let path = session.req_header().uri.path();
            let _ = self.routes.iter().position(|r| path.starts_with(r.as_str()));
        }
        let mut peer = HttpPeer::new(self.upstream.as_str(), false, String::new());
        if self.h2 {
            peer.options.alpn = ALPN::H2;
            peer.options.max_h2_streams = 100;
        }
        Ok(Box::new(peer))
    }
}

fn main() {
    // LISTEN UPSTREAM down(h1|h2c|h1tls|h2tls) up(h1|h2c) CERT KEY ROUTES THREADS
    let a: Vec<String> = std::env::args().collect();
    if a.len() < 9 {
        println!("pingora-peer 0.9.1");
        return;
    }
    let conf = ServerConf { threads: a[8].parse().unwrap(), upstream_keepalive_pool_size: 512, ..Default::default() };
    let mut server = Server::new_with_opt_and_conf(Opt::default(), conf);
    server.bootstrap();
    let n: usize = a[7].parse().unwrap();
    let relay = Relay {
        upstream: a[2].clone(),
        h2: a[4] == "h2c",
        routes: (0..n).map(|i| format!("/r{:04}/", i)).collect(),
    };
    let mut service = http_proxy_service(&server.configuration, relay);
    if a[3] == "h2c" {
        let mut o = HttpServerOptions::default();
        o.h2c = true;
        service.app_logic_mut().unwrap().server_options = Some(o);
    }
    if a[3].ends_with("tls") {
        let mut tls = TlsSettings::intermediate(&a[5], &a[6]).unwrap();
        if a[3] == "h2tls" {
            tls.enable_h2();
        }
        service.add_tls_with_settings(&a[1], None, tls);
    } else {
        service.add_tcp(&a[1]);
    }
    server.add_service(service);
    server.run_forever();
}
