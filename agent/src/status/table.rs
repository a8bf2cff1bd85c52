//! The status document for people.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};

use super::{
    document::{Document, Peer, PresharedKeys},
    socket::{self, Asked},
};
use crate::config::{Output, StatusArgs};

/// `wattle-agent status`: the text to print.
pub(crate) async fn print(args: &StatusArgs) -> anyhow::Result<String> {
    let path = args.state.socket();
    let Some(answer) = socket::ask(&path, Asked::Status).await? else {
        bail!("no agent answers at {}: is `wattle-agent run` running?", path.display());
    };
    let document: Document = serde_json::from_str(&answer).context("the agent's answer")?;
    match args.output {
        Output::Json => Ok(serde_json::to_string_pretty(&document)?),
        Output::Table => Ok(table(&document)),
    }
}

fn table(document: &Document) -> String {
    let Document { node, set, session, data_plane, preshared_keys, peers, .. } = document;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<15}{value}");
    };
    line("node", &format!("{} ({}) in network {}", node.name, node.id, node.network));
    line("addresses", &node.addresses.join(", "));
    line("session", &session_line(document));
    if let Some(error) = &session.error {
        line("", error);
    }
    line("revision", &format!("{} applied, {} verified", set.revision, set.verified_revision));
    line("digest", &set.digest);
    if let Some(error) = &set.error {
        line("", error);
    }
    line(
        "data plane",
        &format!(
            "{}, {} on port {}, MTU {} ({})",
            data_plane.kind,
            data_plane.interface,
            data_plane.listen_port,
            data_plane.mtu,
            mtu_from(&data_plane.mtu_from)
        ),
    );
    if preshared_keys.on || preshared_keys.peers > 0 {
        let PresharedKeys { generation, peers, .. } = preshared_keys;
        line("preshared keys", &format!("secret {generation}, with {peers} peers"));
    }
    if !data_plane.repairs.is_empty() {
        let repairs = data_plane.repairs.iter().map(|(kind, count)| format!("{kind} {count}"));
        line("repaired", &repairs.collect::<Vec<_>>().join(", "));
    }
    for error in &data_plane.errors {
        line("", error);
    }
    line("full sets", &format!("{}, resyncs {}", session.full_sets, session.resyncs));
    text.push('\n');
    text.push_str(&peer_table(peers));
    text
}

fn mtu_from(who: &str) -> &str {
    match who {
        "path" => "as the path",
        "network" => "as the network",
        _ => "as --mtu",
    }
}

fn session_line(document: &Document) -> String {
    let session = &document.session;
    match (&session.control_plane, &session.replica) {
        (Some(address), Some(replica)) => {
            format!("{} to {address} (replica {replica})", session.state)
        }
        (Some(address), None) => format!("{} to {address}", session.state),
        _ => session.state.clone(),
    }
}

fn peer_table(peers: &[Peer]) -> String {
    let mut rows =
        vec![["PEER", "ADDRESSES", "ENDPOINT", "HANDSHAKE", "RECEIVED", "SENT"].map(str::to_owned)];
    rows.extend(peers.iter().map(|peer| {
        [
            peer.name.clone(),
            peer.addresses.join(","),
            peer.endpoint.clone().unwrap_or_else(|| "-".into()),
            peer.last_handshake_seconds
                .map_or_else(|| "never".into(), |age| format!("{age} s ago")),
            bytes(peer.rx_bytes),
            bytes(peer.tx_bytes),
        ]
    }));
    let widths: [usize; 6] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let (mut value, mut unit) = (count as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let peer = |name: &str, rx| Peer {
            id: String::new(),
            name: name.into(),
            public_key: String::new(),
            addresses: vec!["10.90.0.2".into()],
            endpoint: None,
            last_handshake_seconds: Some(3),
            rx_bytes: rx,
            tx_bytes: 0,
        };
        let text = peer_table(&[peer("a", 5), peer("a-longer-name", 3 << 20)]);
        let lines: Vec<&str> = text.lines().collect();
        let column = lines[0].find("ADDRESSES").unwrap();
        assert!(lines[1..].iter().all(|line| &line[column..column + 9] == "10.90.0.2"), "{text}");
        assert!(lines[1].contains("5 B") && lines[2].contains("3.0 MiB"), "{text}");
    }
}
