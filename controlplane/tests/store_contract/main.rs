//! One suite over every backend of the store, and what each backend promises besides.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

mod contract;
mod embedded;
mod etcd;

/// Runs every test of the contract on stores that `$open` makes: an async function that returns an
/// `Arc<dyn Store>`, empty, and something that keeps it alive.
macro_rules! contract_suite {
    ($open:path: $($test:ident),+ $(,)?) => {
        mod suite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let (store, _keep) = $open().await;
                    $crate::contract::$test(store).await;
                }
            )+
        }
    };
    ($open:path) => {
        $crate::contract_suite!($open:
            an_empty_store_has_nothing,
            a_put_is_read_back_with_its_revision,
            revisions_rise_by_one_and_nothing_takes_none,
            comparisons_decide,
            a_refused_transaction_writes_nothing,
            limits_are_named_and_nothing_is_written,
            transactions_at_the_limits_are_done,
            listings_page_in_the_order_of_keys,
            a_snapshot_shows_one_revision,
            a_snapshot_of_more_than_one_answer_holds_is_whole,
            a_watch_tells_whole_transactions_in_order,
            a_watch_tells_its_prefix_only,
            a_watch_resumes_at_every_revision,
            a_watch_from_the_future_waits,
            counters_by_many_writers_lose_nothing,
            a_group_is_evaluated_in_order,
            reads_see_what_was_committed_before,
            a_watch_brings_every_beat,
            a_beat_that_was_given_up_proves_nothing,
            what_is_announced_is_there,
            a_watch_that_catches_up_tells_whole_transactions,
        );
    };
}
pub(crate) use contract_suite;
