//! One stream of units, as a browser reads it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: String,
    /// Empty where only an id came.
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// One stream, as a browser reads it.
pub(crate) struct Stream {
    socket: TcpStream,
    text: String,
    pub(crate) last_id: String,
}

impl Stream {
    pub(crate) async fn open(at: SocketAddr, query: &str, last_id: Option<&str>) -> Self {
        let mut socket = TcpStream::connect(at).await.unwrap();
        let id = last_id.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
        // Version 1.0, so that the answer has no chunks.
        let request = format!(
            "GET /api/v1/supply-chain/stream{query} HTTP/1.0\r\nhost: a\r\naccept: text/event-stream\r\naccept-encoding: gzip\r\n{id}\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Self {
            socket,
            text: String::new(),
            last_id: String::new(),
        };
        let head = stream.until("\r\n\r\n").await.unwrap().to_lowercase();
        assert!(head.lines().next().unwrap().contains(" 200"), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        assert!(!head.contains("content-encoding"), "{head}");
        stream
    }

    /// What comes before `end`; `None` where the stream ends first.
    async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some((text, rest)) = self.text.split_once(end) {
                let (text, rest) = (text.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(text);
            }
            let mut buffer = [0; 16 * 1024];
            let read = timeout(WITHIN, self.socket.read(&mut buffer))
                .await
                .expect("nothing came")
                .unwrap_or_default();
            if read == 0 {
                return None;
            }
            self.text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
    }

    pub(crate) async fn any(&mut self) -> Option<Event> {
        let text = self.until("\n\n").await?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let event = Event {
            id: field("id:"),
            name: field("event:"),
            data: serde_json::from_str(&field("data:")).unwrap_or_default(),
        };
        assert!(!event.id.is_empty(), "{text}");
        self.last_id.clone_from(&event.id);
        Some(event)
    }

    /// The next that is more than an id.
    pub(crate) async fn next(&mut self) -> Event {
        let began = Instant::now();
        loop {
            let event = self.any().await.expect("the stream ended");
            assert!(began.elapsed() < WITHIN, "nothing but ids came");
            if !event.name.is_empty() {
                return event;
            }
        }
    }

    pub(crate) async fn orders(&mut self, count: usize) -> Vec<i64> {
        let mut orders = Vec::new();
        for _ in 0..count {
            let event = self.next().await;
            assert_eq!(event.name, "unit", "{event:?}");
            orders.push(event.data["order"].as_i64().unwrap());
        }
        orders
    }
}
