//! Following an accepted stream: stage, commit, apply, ack.

use tokio::{join, select, time::Instant};
use wattle_model::{Epoch, NodeId, Revision};

use super::{
    Session,
    convert::{self, Commit, Config, Frame, Mark, Message},
    link::{End, Link},
    stage::Staged,
};
use crate::{
    reconcile::{Change, Stopped},
    report::Report,
    settings::Settings,
};

impl From<Stopped> for End {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl Session {
    /// Follows a stream to its end.
    pub(super) async fn follow(&mut self, link: &mut Link) -> End {
        loop {
            if let Err(end) = self.follow_once(link).await {
                return end;
            }
        }
    }

    async fn follow_once(&mut self, link: &mut Link) -> Result<(), End> {
        self.tell(link).await?;
        let message = select! {
            () = self.ended.cancelled() => return Err(End::Stopped),
            message = link.next() => match message? {
                Some(message) => message,
                None if link.acks.are_due() => return self.ack(link, Vec::new()).await,
                None => return Ok(()),
            },
            Ok(()) = self.mesh_status.changed() => return Ok(()),
            Ok(()) = self.parts.host.changed() => return Ok(()),
            Ok(()) = self.sightings.changed() => return Ok(()),
        };
        match message {
            Message::Frame(frame) => self.frame(link, frame).await,
            Message::Config(config) => {
                match config {
                    Ok(config) => link.stage.set_config(config),
                    // The peers that come with it are as good as ever.
                    Err(error) => tracing::warn!(%error, "settings that make no sense are ignored"),
                }
                Ok(())
            }
            Message::Heartbeat(mark) => self.heartbeat(link, mark).await,
            Message::Inspect { query, peer } => self.inspect(link, query, peer).await,
            Message::OwnKey { key, generation, make_next } => {
                key.into_iter().for_each(|key| link.stage.set_own_key(key));
                generation.into_iter().for_each(|own| link.stage.set_own_generation(own));
                if make_next { self.tell_next_key(link).await } else { Ok(()) }
            }
            Message::Drain { deadline, prefer } => {
                link.leave(deadline, prefer);
                Ok(())
            }
            Message::Retry(retry) => Err(End::Retry(retry)),
            Message::Removed => Err(End::Removed),
            Message::Welcome(_) => Err(End::Broken("a second Welcome".into())),
        }
    }

    /// Says whatever the control plane doesn't know yet: where this machine may be reached, where
    /// peers behind NAT are, and that the device was found as it should be.
    async fn tell(&mut self, link: &mut Link) -> Result<(), End> {
        let mesh = self.mesh_status.borrow_and_update().clone();
        let host = self.parts.host.borrow_and_update().clone();
        if link.home.is_some_and(|home| !host.has(home)) {
            return Err(End::Moved);
        }
        let (port, secret) = (mesh.listen_port, self.secrets.newest());
        let report = Report::new(&self.parts.declared, &host, port, mesh.kind, secret);
        if mesh.listen_port != 0 && link.reported.as_ref() != Some(&report) {
            link.send(convert::report(&report)).await?;
            link.reported = Some(report);
        }
        let new = link.told.tell(&self.sightings.borrow_and_update());
        if !new.is_empty() {
            link.send(convert::observations(&new)).await?;
        }
        if link.agrees && mesh.verified != link.verified {
            link.verified = mesh.verified;
            link.acks.verified();
        }
        Ok(())
    }

    async fn frame(&mut self, link: &mut Link, mut frame: Frame) -> Result<(), End> {
        let commit = frame.commit.take();
        link.stage.add(frame);
        match commit {
            Some(commit) => self.commit(link, commit).await,
            None => Ok(()),
        }
    }

    async fn commit(&mut self, link: &mut Link, commit: Commit) -> Result<(), End> {
        let arrived = Instant::now();
        let epoch = link.welcome.epoch;
        self.check(epoch, commit)?;
        let Staged { mut batch, config, own_key, own_generation, mut rejected } =
            link.stage.commit(epoch, commit);
        let given = config.as_ref().map(|config| config.secrets.clone());
        // First those that peers may go by from now on.
        let (new_secrets, kept_secrets) = self.take_secrets(given, own_generation);
        let settings = config.and_then(|config| self.keep_settings(*config));
        if settings.is_none() || !kept_secrets {
            // Without its hash the control plane sends it again.
            batch.config_hash = None;
        }

        // Written before it is applied: a killed agent begins with no less than the device has.
        let difference = self.parts.set.commit(&batch).await;
        let changed = self.forget_secrets() || new_secrets;
        let secrets = changed.then(|| self.secrets.in_use());
        let (update, unread) = match commit.full_set {
            true => convert::reset(self.parts.set.held()),
            false => convert::delta(&difference),
        };
        rejected.extend(unread);
        let (key, lost) = self.own_key(own_key);
        let (own, revision) = (key.clone(), batch.revision);
        let change = Change { update, settings, secrets, key: own, revision };
        let (applied, synced) = join!(self.parts.mesh.apply(change), self.parts.set.sync());
        if let Err(error) = synced {
            tracing::warn!(%error, "the committed set may not outlive a power cut");
        }
        let applied = applied?;
        self.keep_key(key);
        rejected.extend(applied.rejected);
        for rejection in &rejected {
            tracing::warn!(?rejection, "an entry isn't applied");
        }
        link.agrees = true;
        link.acks.applied(applied.at - arrived);
        if commit.mark.ack_wanted || !rejected.is_empty() {
            self.ack(link, rejected).await?;
        }
        if lost {
            self.tell_next_key(link).await?;
        }
        let full_set = commit.full_set;
        self.publish(|status| status.full_sets += u64::from(full_set));
        self.compare(link, commit.mark, full_set).await
    }

    /// Whether the batch may follow what is held: only a full set leads into another epoch, or back
    /// in this one, because the control plane sends one where its store went back.
    fn check(&self, epoch: Epoch, commit: Commit) -> Result<(), End> {
        let held = self.parts.set.held();
        if commit.full_set {
            return Ok(());
        }
        if held.epoch() != Some(epoch) {
            return Err(End::Broken("the first batch of another epoch isn't a full set".into()));
        }
        let (from, to) = (held.revision(), commit.mark.revision);
        if to < from {
            return Err(End::Broken(format!("a batch leads back from revision {from} to {to}")));
        }
        Ok(())
    }

    /// Keeps this node's settings; `None` where the disk refuses.
    fn keep_settings(&mut self, config: Config) -> Option<Settings> {
        let Config { settings, ca_certificates, .. } = config;
        let kept = self.parts.identity.update(|identity| {
            identity.settings = settings.clone();
            if let Some(certificates) = ca_certificates {
                identity.ca_certificates = certificates;
            }
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "this node's settings can't be kept");
            return None;
        }
        self.addresses.set(settings.control_planes.clone());
        Some(settings)
    }

    async fn heartbeat(&mut self, link: &mut Link, mark: Mark) -> Result<(), End> {
        // In the middle of a batch there is nothing to compare with.
        if link.stage.is_empty() && link.agrees {
            let held = self.parts.set.held();
            if held.digest() == mark.digest && held.revision() < mark.revision {
                self.moved(mark.revision).await?;
            }
            self.compare(link, mark, false).await?;
        }
        if mark.ack_wanted && link.agrees {
            self.ack(link, Vec::new()).await?;
        }
        Ok(())
    }

    /// An operator wants to know how the tunnel to a peer is.
    async fn inspect(&self, link: &Link, query: u64, peer: NodeId) -> Result<(), End> {
        let described = self.parts.mesh.describe().await?;
        let seen = described.ok().and_then(|device| {
            let key = device.peers.iter().find(|spec| spec.node == peer)?.public_key;
            device.observed.peers.get(&key).cloned()
        });
        link.send(convert::inspected(query, seen.as_ref())).await
    }

    async fn moved(&mut self, revision: Revision) -> Result<(), End> {
        self.parts.set.moved(revision).await;
        self.parts.mesh.moved(revision).await?;
        self.publish(|_| {});
        Ok(())
    }

    async fn compare(&mut self, link: &Link, mark: Mark, full_set: bool) -> Result<(), End> {
        let held = self.parts.set.held().digest();
        if self.agreement.compare(held, mark.digest, full_set, mark.revision) {
            self.publish(|status| status.resyncs += 1);
            link.send(convert::resync(mark.revision)).await?;
        }
        Ok(())
    }

    async fn ack(&self, link: &mut Link, rejected: Vec<convert::Rejection>) -> Result<(), End> {
        let verified = self.mesh_status.borrow().verified;
        link.verified = verified;
        let took = link.acks.sent();
        link.send(convert::ack(self.parts.set.held(), took, rejected, verified)).await
    }
}
