//! A network's secrets: given to its agents in their config, and what they hold told to them and to their
//! peers at one commit.

use std::time::SystemTime;

use wattle_model::{Generation, Mode};
use wattle_proto::{
    entry,
    sync::{self, sync_request},
};

use super::{
    agent::{Agent, Batch, Held},
    world::{World, network},
};
use crate::{
    secrets::{NetworkSecrets, ReadSecrets},
    store::Transaction,
};

async fn read(world: &World) -> ReadSecrets {
    ReadSecrets::of(&*world.replica.store, &network()).await.unwrap()
}

async fn change(world: &World, to: impl FnOnce(&NetworkSecrets) -> NetworkSecrets) {
    let read = read(world).await;
    let write: Transaction = read.write(&to(&read.secrets));
    world.commit(write).await;
}

async fn report(agent: &mut Agent, secret_generation: u64) {
    let report = sync::Report { listen_port: 51820, secret_generation, ..Default::default() };
    agent.say(sync_request::Message::Report(report)).await;
}

/// The next batch that is as wanted.
async fn batch_where(agent: &mut Agent, wanted: impl Fn(&Batch) -> bool) -> Batch {
    loop {
        let batch = agent.batch_acked().await;
        if wanted(&batch) {
            return batch;
        }
    }
}

fn given(batch: &Batch) -> Option<Vec<u64>> {
    let config = batch.config.as_ref()?;
    Some(config.secrets.iter().map(|secret| secret.generation).collect())
}

fn own(batch: &Batch) -> Option<u64> {
    batch.own_key.as_ref()?.secret_generation
}

#[tokio::test]
async fn who_holds_a_secret_is_told_of_it_together_with_its_peers() {
    let world = World::new().await;
    let (a, b) = (world.enroll().await, world.enroll().await);
    change(&world, |none| none.renewed(SystemTime::now())).await;
    let (mut agent, _) = Agent::connect(&world, &a, Held::new(1)).await;
    let first = batch_where(&mut agent, |batch| given(batch) == Some(vec![1])).await;
    assert_eq!(own(&first), None);
    assert_eq!(first.config.unwrap().secrets, read(&world).await.secrets.told());
    let mut peer = Agent::joined(&world, &b, 2).await;

    report(&mut agent, 1).await;
    let told = batch_where(&mut agent, |batch| own(batch).is_some()).await;
    assert_eq!((own(&told), told.entries), (Some(1), vec![a.id]), "with its entry");
    assert_eq!(peer.batch_acked().await.entries, [a.id]);
    for agent in [&agent, &peer] {
        let entry = entry::decode(&agent.held.entries[&a.id]).unwrap();
        assert_eq!(entry.secret_generation, Generation(1));
    }

    // Who comes again with something else is told again, and nobody else.
    for (goes_by, expected) in [(1, None), (0, Some(1))] {
        let held = Held { secret_generation: goes_by, ..agent.cut() };
        agent = Agent::connect(&world, &a, held).await.0;
        world.change(&b, 9000 + u16::try_from(goes_by).unwrap()).await;
        assert_eq!(own(&agent.batch_acked().await), expected);
    }
}

/// No restart, no heartbeat and no change of anything else brings it: a running stream is told.
#[tokio::test]
async fn another_secret_comes_beside_the_first_which_goes_when_nobody_goes_by_it() {
    let world = World::new().await;
    let (a, b) = (world.enroll().await, world.enroll().await);
    change(&world, |none| none.renewed(SystemTime::now())).await;
    let (mut one, _) = Agent::connect(&world, &a, Held::new(1)).await;
    let (mut two, _) = Agent::connect(&world, &b, Held::new(2)).await;
    for agent in [&mut one, &mut two] {
        report(agent, 1).await;
        batch_where(agent, |batch| own(batch) == Some(1)).await;
    }
    change(&world, |first| first.renewed(SystemTime::now())).await;
    for agent in [&mut one, &mut two] {
        batch_where(agent, |batch| given(batch) == Some(vec![1, 2])).await;
    }
    report(&mut one, 2).await;
    batch_where(&mut one, |batch| own(batch) == Some(2)).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert!(read(&world).await.secrets.has_former(), "the other one goes by it");
    report(&mut two, 2).await;
    for agent in [&mut one, &mut two] {
        batch_where(agent, |batch| given(batch) == Some(vec![2])).await;
    }
    assert!(!read(&world).await.secrets.has_former());
}

/// Whether it sees itself or not.
#[tokio::test]
async fn an_agent_that_sees_nobody_is_told_what_its_entry_says() {
    let world = World::new().await;
    let a = world.enroll().await;
    world.set_mode(Mode::Closed).await;
    change(&world, |none| none.renewed(SystemTime::now())).await;
    let (mut agent, _) = Agent::connect(&world, &a, Held::new(1)).await;
    report(&mut agent, 1).await;
    let told = batch_where(&mut agent, |batch| own(batch).is_some()).await;
    assert_eq!((own(&told), told.entries.len()), (Some(1), 0));
    change(&world, |first| first.ended(SystemTime::now())).await;
    batch_where(&mut agent, |batch| given(batch) == Some(vec![1, 2])).await;
    report(&mut agent, 2).await;
    assert_eq!(own(&batch_where(&mut agent, |batch| own(batch).is_some()).await), Some(2));
}
