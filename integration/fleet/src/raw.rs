//! The raw limit: the same bytes to the same number of plain TLS connections, with no HTTP/2, no
//! messages and no state. A process of its own writes, another one reads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, stdin, stdout},
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use wattle_certs::{
    Ca, Identity, KeyPair, ReplicaCertificate, SpiffeId, TrustDomain, certificate_to_pem,
    certificates_from_pem, client_config, server_config,
};
use wattle_model::ReplicaId;

use crate::{
    order::{Answer, Buckets, Order},
    worker::{self, Target, Tls, now},
};

/// A message's length, then its number; bytes of no meaning follow.
const HEADER: usize = 12;
/// What TLS 1.3 adds to a message: a record's header, its type, its tag.
pub(crate) const TLS_OVERHEAD: usize = 22;
const PATIENCE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_hours(24);

/// The smallest message, in TLS bytes.
pub(crate) const SMALLEST: usize = HEADER + TLS_OVERHEAD;

/// The process that writes. It has as many threads as the control plane.
pub(crate) async fn serve() -> Result<()> {
    let trust_domain: TrustDomain = "raw.wattle".parse()?;
    let (ca, key) =
        (Ca::generate(&trust_domain, std::time::SystemTime::now()), KeyPair::generate());
    let id = SpiffeId { trust_domain, identity: Identity::Replica(ReplicaId::new([1; 16])) };
    let own = ca.issue(&id, &key.csr_key(), DAY, std::time::SystemTime::now())?;
    let chain = vec![own, ca.certificate().clone()];
    let certificate = ReplicaCertificate::new(chain, &key)?;
    let tls = server_config(certificate, std::slice::from_ref(ca.certificate()))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, roots) =
        (listener.local_addr()?.to_string(), vec![certificate_to_pem(ca.certificate())]);
    say(&Answer::Listening { address, roots }).await?;

    let (write, messages) = watch::channel(Arc::<[u8]>::from([]));
    tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), messages));
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let Order::Write { bytes, number } = serde_json::from_str(&line)? else {
            bail!("the raw server only writes");
        };
        let message = message(bytes, number);
        let at = now();
        write.send_replace(message);
        say(&Answer::At(at)).await?;
    }
    Ok(())
}

async fn say(answer: &Answer) -> Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    stdout().write_all(&line).await?;
    Ok(stdout().flush().await?)
}

fn message(bytes: usize, number: u64) -> Arc<[u8]> {
    let length = u32::try_from(bytes.max(HEADER)).expect("messages are short");
    let mut message = length.to_be_bytes().to_vec();
    message.extend(number.to_be_bytes());
    message.resize(length as usize, 0);
    message.into()
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, messages: watch::Receiver<Arc<[u8]>>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (tls, mut messages) = (tls.clone(), messages.clone());
        tokio::spawn(async move {
            let _ = tcp.set_nodelay(true);
            let Ok(mut stream) = tls.accept(tcp).await else { return };
            messages.mark_unchanged();
            while messages.changed().await.is_ok() {
                let message = messages.borrow_and_update().clone();
                if stream.write_all(&message).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        });
    }
}

/// The connections of a process that reads.
#[derive(Default)]
pub(crate) struct Readers {
    shared: Arc<Shared>,
    count: usize,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    read: Arc<AtomicU64>,
    /// When each connection had the message last waited for.
    times: Mutex<Vec<u64>>,
    number: AtomicU64,
    lost: AtomicUsize,
    more: Notify,
}

impl Readers {
    /// Opens connections, a few at a time.
    pub(crate) async fn open(
        &mut self,
        address: &str,
        roots: &[String],
        count: usize,
    ) -> Result<()> {
        let roots: Vec<CertificateDer<'static>> = certificates_from_pem(&roots.concat())?;
        let tls = Arc::new(client_config(&roots, None, None)?);
        let target = Target { address: address.parse()?, tls };
        let mut opening = JoinSet::new();
        for number in 0..count {
            let (target, shared) = (target.clone(), self.shared.clone());
            if opening.len() >= 64 {
                self.follow(opening.join_next().await.context("one is opening")??);
            }
            opening.spawn(async move { worker::connect(&target, number, &shared.read).await });
        }
        while let Some(stream) = opening.join_next().await {
            self.follow(stream?);
        }
        ensure!(self.count == count, "{} of {count} raw connections could be opened", self.count);
        Ok(())
    }

    fn follow(&mut self, stream: Result<Tls>) {
        let Ok(stream) = stream else { return };
        self.count += 1;
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            let _ = read(stream, &shared).await;
            shared.lost.fetch_add(1, Ordering::Relaxed);
            shared.more.notify_one();
        });
    }

    /// How long message `number`, written at `at`, took to all of them.
    pub(crate) async fn latencies(&self, number: u64, at: u64) -> Result<Buckets> {
        let all = async {
            while self.shared.number.load(Ordering::Relaxed) != number
                || self.shared.times.lock().len() < self.count
            {
                let lost = self.shared.lost.load(Ordering::Relaxed);
                ensure!(lost == 0, "{lost} raw connections broke off");
                self.shared.more.notified().await;
            }
            Ok(())
        };
        timeout(PATIENCE, all).await.context("raw connections don't get their bytes")??;
        let times = std::mem::take(&mut *self.shared.times.lock());
        let mut latencies = Histogram::<u64>::new_with_max(600_000_000, 3)?;
        for time in times {
            latencies.saturating_record((time.saturating_sub(at) / 1000).max(1));
        }
        let buckets = latencies.iter_recorded();
        Ok(buckets.map(|at| (at.value_iterated_to(), at.count_at_value())).collect())
    }
}

async fn read(mut stream: Tls, shared: &Shared) -> Result<()> {
    let (mut buffer, mut filled) = (vec![0; 4096], 0);
    loop {
        let more = stream.read(&mut buffer[filled..]).await?;
        ensure!(more > 0, "closed");
        filled += more;
        let Some(header) = buffer[..filled].first_chunk::<HEADER>() else { continue };
        let [a, b, c, d, number @ ..] = *header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if filled < length {
            buffer.resize(buffer.len().max(length), 0);
            continue;
        }
        // The next message is written when all have this one.
        filled = 0;
        let at = now();
        shared.number.store(u64::from_be_bytes(number), Ordering::Relaxed);
        shared.times.lock().push(at);
        shared.more.notify_one();
    }
}
