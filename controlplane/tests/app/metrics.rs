//! What Prometheus is told, over real HTTP.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use wattle_controlplane::app;
use wattle_runtime::shutdown::Shutdown;

use crate::{config, folder};

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_scrape_tells_how_the_replica_is() {
    let folder = folder();
    let mut config = config(folder.path());
    config.metrics_listen = Some(([127, 0, 0, 1], 0).into());
    let bound = app::build(config).await.unwrap();
    let (address, replica) = (bound.metrics_address().unwrap(), bound.replica().clone());
    let shutdown = Shutdown::new();
    let stop = shutdown.clone();
    let task = tokio::spawn(async move { bound.run(&stop).await });

    let page = get(address, "/metrics").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("openmetrics-text"), "{page}");
    let lines = [
        "wattle_stale 0",
        "wattle_streams 0",
        "wattle_encodes_total 0",
        "wattle_last_change_nodes{state=\"applied\"} 0",
        "# EOF",
    ];
    for line in lines {
        assert!(page.lines().any(|said| said == line), "no {line:?} in {page}");
    }
    let value = |name: &str| -> u64 {
        let said = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        said.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    };
    assert!((1..=replica.live.read().head().0).contains(&value("wattle_revision")));
    assert!(value("wattle_change_handed_seconds_count") > 0, "the first operator was a change");
    assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
    shutdown.begin();
    task.await.unwrap();
}
