//! A few chains, so that the machinery is shown to work wherever the other tests run.

#![allow(missing_docs)]

use bizra_mutate_crs::mutate;

#[tokio::test(flavor = "multi_thread")]
async fn a_few_chains_of_edits_end_with_an_answer_and_go_back() {
    let outcome = mutate(0..2, 2).await;
    assert_eq!(outcome.failures, Vec::<String>::new());
    assert_eq!(outcome.transitions, 22);
}
