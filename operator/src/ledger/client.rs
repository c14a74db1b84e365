//! Questions to the ledger of several nodes at once.

use std::time::Duration;

use bizra_proto::v1::{
    self, GetAccountRequest, GetTransactionRequest, GetValidatorRequest, GetValidatorSetRequest, ProveKeyRequest,
    SubmitRequest, admin_client::AdminClient, ledger_client::LedgerClient,
};
use bizra_simplex::types::{Digest, Signature};
use bizra_transaction::{Address, KeyProof, TransactionId};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tonic::{Code, Status, transport::Channel};

use super::OwnerView;

/// How long a node has to answer a question.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Too few nodes can be asked.
    #[error("nodes with more than a third of the power are needed, in sync and answering, and there are not so many")]
    TooFew,
    /// The nodes do not say the same.
    #[error("nodes with more than a third of the power do not say the same yet")]
    NoAgreement,
    /// A node does not prove its key.
    #[error("node {node} does not prove its key: {why}")]
    NoProof {
        /// The node.
        node: String,
        /// What it says instead.
        why: String,
    },
}

/// A node that can be asked.
#[derive(Clone)]
pub struct Asked {
    /// Its name.
    pub name: String,
    /// Its voting power, by its own word.
    pub power: u64,
    /// The total, by its own word.
    pub total_power: u64,
    /// The height it has finalised at least.
    pub height: u64,
    /// The connection, which is to that node for certain.
    pub channel: Channel,
}

/// The ledger, as the nodes of a network tell it.
pub struct Ledger {
    voters: Vec<Asked>,
}

fn total_power(voters: &[Asked]) -> u64 {
    voters.iter().map(|voter| voter.total_power).max().unwrap_or(0)
}

/// The height that nodes with more than a third of the power have finalised, and who they are. The highest such height: what it
/// holds is final.
fn witnesses(mut voters: Vec<Asked>) -> Result<(u64, Vec<Asked>), LedgerError> {
    voters.retain(|voter| voter.power > 0 && voter.height > 0);
    voters.sort_by_key(|voter| std::cmp::Reverse(voter.height));
    let total = total_power(&voters);
    let mut power: u128 = 0;
    let enough = voters.iter().position(|voter| {
        power += u128::from(voter.power);
        3 * power > u128::from(total)
    });
    let enough = enough.ok_or(LedgerError::TooFew)?;
    let height = voters[enough].height;
    voters.retain(|voter| voter.height >= height);
    Ok((height, voters))
}

/// The answer that more than a third of the power gives.
fn agreed<T: PartialEq>(answers: Vec<(u64, T)>, total: u64) -> Result<T, LedgerError> {
    let mut counted: Vec<(u128, T)> = Vec::new();
    for (power, answer) in answers {
        match counted.iter_mut().find(|(_, known)| *known == answer) {
            Some((sum, _)) => *sum += u128::from(power),
            None => counted.push((power.into(), answer)),
        }
    }
    let found = counted.into_iter().find(|(power, _)| 3 * power > u128::from(total));
    found.map(|(_, answer)| answer).ok_or(LedgerError::NoAgreement)
}

impl Ledger {
    /// A ledger that these nodes tell of.
    pub fn new(voters: Vec<Asked>) -> Self {
        Self { voters }
    }

    /// What it knows of an owner, and what became of a transaction.
    pub async fn owner(&self, owner: Address, transaction: Option<TransactionId>) -> Result<OwnerView, LedgerError> {
        let (height, voters) = witnesses(self.voters.clone())?;
        let total = total_power(&voters);
        let mut asked: FuturesUnordered<_> = voters
            .into_iter()
            .map(|voter| async move {
                let answer = tokio::time::timeout(PATIENCE, ask(voter.channel, owner, transaction, height)).await;
                answer.ok()?.ok().map(|answer| (voter.power, answer))
            })
            .collect();
        let mut answers = Vec::new();
        while let Some(answer) = asked.next().await {
            answers.extend(answer);
        }
        agreed(answers, total)
    }

    /// Hands a signed transaction to every node that can be asked. Whether it was applied is for [`Self::owner`] to say.
    pub async fn submit(&self, transaction: &[u8]) {
        let mut handed: FuturesUnordered<_> = self
            .voters
            .iter()
            .map(|voter| async move {
                let request = SubmitRequest { transactions: vec![transaction.to_vec().into()] };
                let mut client = LedgerClient::new(voter.channel.clone());
                let answer = tokio::time::timeout(PATIENCE, client.submit(request)).await;
                (voter.name.as_str(), answer)
            })
            .collect();
        while let Some((node, answer)) = handed.next().await {
            let rejection = match answer {
                Ok(Ok(answer)) => answer.into_inner().admissions.into_iter().map(|one| one.rejection).collect(),
                Ok(Err(status)) => status.message().to_owned(),
                Err(_) => "no answer".to_owned(),
            };
            if !rejection.is_empty() {
                tracing::debug!(node, rejection, "a transaction was not admitted");
            }
        }
    }
}

async fn ask(
    channel: Channel,
    owner: Address,
    transaction: Option<TransactionId>,
    height: u64,
) -> Result<OwnerView, Status> {
    let mut ledger = LedgerClient::new(channel);
    let address = owner.0.to_vec();
    let account = ledger.get_account(GetAccountRequest { address: address.clone(), height }).await?.into_inner();
    let validator = ledger.get_validator(GetValidatorRequest { owner: address, height }).await?.into_inner();
    let set = ledger.get_validator_set(GetValidatorSetRequest { epoch: None }).await?.into_inner();
    let before = match set.epoch.checked_sub(1) {
        Some(epoch) => ledger.get_validator_set(GetValidatorSetRequest { epoch: Some(epoch) }).await?.into_inner(),
        None => v1::GetValidatorSetResponse::default(),
    };
    let receipt = match transaction {
        None => None,
        Some(TransactionId(id)) => {
            let request = GetTransactionRequest { transaction_id: id.to_vec(), wait_milliseconds: 0 };
            match ledger.get_transaction(request).await {
                // What is above the height may not be known to the others yet.
                Ok(found) => found.into_inner().receipt.filter(|receipt| receipt.height <= height),
                Err(status) if status.code() == Code::NotFound => None,
                Err(status) => return Err(status),
            }
        }
    };
    Ok(OwnerView { height, balance: account.balance, nonce: account.nonce, validator, set, before, receipt })
}

/// Asks a node to prove that its consensus key is to belong to this owner.
pub async fn prove_key(node: &str, channel: Channel, owner: Address) -> Result<KeyProof, LedgerError> {
    let refused = |why: String| LedgerError::NoProof { node: node.to_owned(), why };
    let mut client = AdminClient::new(channel);
    let asked = client.prove_key(ProveKeyRequest { owner: owner.0.to_vec() });
    let answer = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| refused("no answer".to_owned()))?;
    let answer = answer.map_err(|status| refused(status.message().to_owned()))?.into_inner();
    read_proof(answer).filter(|proof| proof.is_valid(owner)).ok_or_else(|| refused("its proof is none".to_owned()))
}

fn read_proof(answer: v1::ProveKeyResponse) -> Option<KeyProof> {
    Some(KeyProof {
        public_key: answer.public_key.try_into().ok()?,
        height: answer.height,
        block: Digest(answer.block.try_into().ok()?),
        signature: Signature(answer.signature.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tonic::transport::Endpoint;

    use super::*;

    fn voter(power: u64, height: u64) -> Asked {
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        Asked { name: "n".to_owned(), power, total_power: 4, height, channel }
    }

    #[tokio::test]
    async fn the_height_is_one_that_more_than_a_third_has_finalised() {
        let chosen = |voters: &[(u64, u64)]| {
            let voters = voters.iter().map(|&(power, height)| voter(power, height)).collect();
            witnesses(voters).map(|(height, who)| (height, who.len()))
        };
        assert_eq!(chosen(&[(1, 9), (1, 8), (1, 7), (1, 6)]), Ok((8, 2)));
        assert_eq!(chosen(&[(1, 9), (1, 8), (1, 8)]), Ok((8, 3)));
        assert_eq!(chosen(&[(1, 9)]), Err(LedgerError::TooFew));
        assert_eq!(chosen(&[(0, 9), (0, 9), (0, 9)]), Err(LedgerError::TooFew), "full nodes are no witnesses");
        assert_eq!(chosen(&[(1, 0), (1, 0)]), Err(LedgerError::TooFew));
    }

    #[test]
    fn one_liar_convinces_nobody() {
        assert_eq!(agreed(vec![(1, "lie"), (1, "truth"), (1, "truth")], 4), Ok("truth"));
        assert_eq!(agreed(vec![(1, "lie"), (1, "truth")], 4), Err(LedgerError::NoAgreement));
        assert_eq!(agreed(vec![(2, "truth")], 4), Ok("truth"));
    }
}
