//! One connection over which a load asks, kept open as a gateway keeps its own.

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A connection to a node.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    /// Opens one to this host:port.
    pub(crate) async fn open(host: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender.
        tokio::spawn(connection);
        Ok(Self { sender, host: host.to_owned() })
    }

    /// Asks with this pass in the cookie, as a browser's requests have it.
    pub(crate) async fn get(&mut self, address: &str, pass: &str) -> anyhow::Result<(u16, Bytes)> {
        let cookie = format!("anteroom_pass={pass}");
        let request = Request::get(address).header("host", &self.host).header("cookie", cookie);
        self.ask(request.body(Full::default())?).await
    }

    /// Sends this JSON.
    pub(crate) async fn post(
        &mut self,
        address: &str,
        json: String,
    ) -> anyhow::Result<(u16, Bytes)> {
        let request = Request::post(address)
            .header("host", &self.host)
            .header("content-type", "application/json");
        self.ask(request.body(Full::from(json))?).await
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<(u16, Bytes)> {
        let answer = self.sender.send_request(request).await.context("not answered")?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }
}
