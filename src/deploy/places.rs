//! Which folder of `dist/` a bundle belongs into.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{DeployError, Result};
use crate::plan::{Action, Node, NodeId, Plan};
use crate::steps::Artifact;

/// A bundle's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub node: NodeId,
    /// The folder's name.
    pub name: String,
    /// `PROJECT-VERSION-DEVICE`: what the bundle is, whatever its folder has to be called.
    pub product: String,
}

/// Where the bundles of the manifest in `root` are delivered.
pub fn dist_folder(root: &Path) -> PathBuf {
    root.join("dist")
}

/// `PROJECT-VERSION-DEVICE`, with the bundle's own name where two of them would meet. By node.
pub fn places(plan: &Plan) -> Result<Vec<Place>> {
    let mut by_product: BTreeMap<String, Vec<(NodeId, &Action)>> = BTreeMap::new();
    for node in plan.ids() {
        if let Node::Action(action) = plan.node(node)
            && action.artifact == Artifact::Bundle
        {
            by_product.entry(product(action)).or_default().push((node, action));
        }
    }
    let mut places = Vec::new();
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for (product, bundles) in by_product {
        let is_alone = bundles.len() == 1;
        for (node, action) in bundles {
            let step = action.name().replace(['/', '@', '=', ','], "-");
            let name = if is_alone { product.clone() } else { format!("{product}-{step}") };
            if let Some(first) = taken.insert(name.clone(), action.name()) {
                let (first, second) = (first.to_string(), action.name().to_string());
                return Err(DeployError::SamePlace { first, second, path: Path::new("dist").join(name) });
            }
            places.push(Place { node, name, product: product.clone() });
        }
    }
    places.sort_by_key(|place| place.node);
    Ok(places)
}

fn product(action: &Action) -> String {
    let text = |table: &str, field: &str| {
        action.task.params.get(table).and_then(|t| t.get(field)).and_then(|v| v.as_str()).unwrap_or_default().replace('/', "-")
    };
    format!("{}-{}-{}", text("project", "name"), text("project", "version"), text("device", "name"))
}
