//! What a build would do, without doing it: for `plan` and `explain`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::Digest;
use crate::key::{self, Content, KeyRecord, Reason, Subject, changes};
use crate::plan::node::{Action, Node, NodeId, Plan};
use crate::steps::Failure;
use crate::store::Lookup;

use super::build::{Made, contents};
use super::sources::Sources;
use super::{Engine, reasons, store_failure};

#[derive(Clone, Debug)]
pub enum Prediction {
    /// What the source holds now.
    Source(Content),
    /// Its result is in the cache.
    Cached {
        key: Digest,
        tree: Digest,
    },
    WillRun {
        key: Digest,
        reasons: Vec<Reason>,
    },
    /// It depends on what these nodes will make: if that comes out as before, it does not run.
    Unknown {
        waits_for: Vec<NodeId>,
    },
}

pub type Predictions = BTreeMap<NodeId, Prediction>;

/// A step's key, what it is made of, and what changed.
#[derive(Clone, Debug)]
pub struct Explanation {
    pub prediction: Prediction,
    /// The fields of its key; none while inputs are unknown.
    pub record: Option<KeyRecord>,
    /// For a cached step: what had changed when it last ran, if the result before it is still known.
    pub last_changes: Vec<Reason>,
}

impl Engine {
    /// What a build would do with each of these nodes: targets with all that they need, as [`Plan::needed`] gives them. A source that cannot be read
    /// is a failure, because nothing is known of what depends on it.
    pub fn predict(&self, plan: &Plan, needed: &BTreeSet<NodeId>, project: &str) -> Result<Predictions, Failure> {
        let store = self.store();
        let latest = store.latest(project).map_err(store_failure)?;
        let mut sources = Sources::new(store);
        let mut made: Vec<Option<Made>> = vec![None; plan.nodes.len()];
        let mut predictions = Predictions::new();
        for id in plan.ids().filter(|id| needed.contains(id)) {
            let (prediction, result) = match plan.node(id) {
                Node::Source(source) => {
                    let snapshot = sources.snapshot(&source.path)?;
                    (Prediction::Source(snapshot.content), Some(Made::Source(snapshot)))
                }
                Node::Action(action) => match unknown_inputs(&made, action) {
                    waits_for if !waits_for.is_empty() => (Prediction::Unknown { waits_for }, None),
                    _ => self.predict_action(action, &made, latest.get(action.name()))?,
                },
            };
            made[id.index()] = result;
            predictions.insert(id, prediction);
        }
        sources.save()?;
        Ok(predictions)
    }

    fn predict_action(
        &self,
        action: &Action,
        made: &[Option<Made>],
        latest: Option<&crate::store::Latest>,
    ) -> Result<(Prediction, Option<Made>), Failure> {
        let inputs = contents(made, action)?;
        let subject = Subject { kind: action.kind, task: &action.task, inputs: &inputs };
        let key = key::of(&subject);
        let reasons = match self.store().lookup(key).map_err(store_failure)? {
            Lookup::Hit(record) => {
                let tree = record.tree.digest();
                return Ok((Prediction::Cached { key, tree }, Some(Made::Output { key, tree: Arc::new(record.tree) })));
            }
            Lookup::Miss => reasons(self.store(), latest, key, &KeyRecord::of(&subject)),
            Lookup::Damaged(damage) => vec![Reason::Damaged { what: damage.to_string() }],
        };
        Ok((Prediction::WillRun { key, reasons }, None))
    }

    /// Why a step would run, or what had changed when it last did.
    pub fn explain(&self, plan: &Plan, id: NodeId, project: &str) -> Result<Explanation, Failure> {
        let mut predictions = self.predict(plan, &plan.needed(&[id]), project)?;
        let prediction = predictions.remove(&id).ok_or_else(|| Failure::bug("a step is not part of its own plan"))?;
        let fields = |key: Digest| -> Result<Option<KeyRecord>, Failure> {
            Ok(self.store().record(key)?.and_then(|record| KeyRecord::parse(&record.key_text)))
        };
        let latest = self.store().latest(project).map_err(store_failure)?.get(plan.node(id).name()).copied();
        let record = match &prediction {
            Prediction::Cached { key, .. } => fields(*key)?,
            _ => None,
        };
        let before = latest.filter(|latest| matches!(&prediction, Prediction::Cached { key, .. } if *key == latest.key));
        let before = before.and_then(|latest| latest.before).map(fields).transpose()?.flatten();
        let last_changes = match (&before, &record) {
            (Some(before), Some(record)) => changes(before, record),
            _ => Vec::new(),
        };
        Ok(Explanation { prediction, record, last_changes })
    }
}

fn unknown_inputs(made: &[Option<Made>], action: &Action) -> Vec<NodeId> {
    let mut unknown: Vec<NodeId> = action.input_refs().map(|input| input.node).filter(|id| made[id.index()].is_none()).collect();
    unknown.sort();
    unknown.dedup();
    unknown
}
