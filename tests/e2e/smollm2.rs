//! The example of a published model, its quick profile: calibrated, fitted, tested and bundled.

use std::path::Path;

use serde_json::Value;

use crate::peers::peers;
use crate::space::Space;

#[test]
fn a_published_model_is_fitted_into_two_devices() {
    let (model, texts) = (peers().join("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), peers().join("sotu"));
    for needed in [&model, &texts] {
        assert!(needed.exists(), "PEER MISSING: no {}; run: bash tests/peers/install.sh", needed.display());
    }
    let space = Space::new();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/smollm2/slmops.toml");
    space.write("slmops.toml", &std::fs::read_to_string(manifest).expect("the example"));
    ["model", "texts/test"].iter().for_each(|folder| std::fs::create_dir_all(space.join(folder)).expect("a folder"));
    std::fs::copy(&model, space.join("model/model.gguf")).expect("a copy");
    // As the example's `get.sh` divides them; some are enough for the quick profile.
    for name in slmops::base::files::names(&texts).expect("the speeches") {
        let name = name.to_string_lossy();
        let kept = name.ends_with(".txt") && (name.starts_with("179") || name.starts_with("180"));
        let folder = if name.starts_with("1790_") { "texts/test" } else { "texts" };
        if kept {
            std::fs::copy(texts.join(&*name), space.join(folder).join(&*name)).expect("a copy");
        }
    }
    space.slmops(&["build", "--profile", "quick"]).success().says(&["bundled for phone", "bundled for gateway"]);
    let report = |step: &str, folder: &str| -> Value {
        space.slmops(&["out", "--profile", "quick", step, folder]).success();
        serde_json::from_str(&space.read(&format!("{folder}/report.json"))).expect("a report")
    };
    let divergence = |report: &Value| report["sets"]["speeches"]["metrics"]["kl_divergence"].clone();
    let (fitted, preset) = (report("speech@model=phone", "fitted"), report("speech@model=preset,type=Q4_0", "preset"));
    let (ours, theirs) = (divergence(&fitted), divergence(&preset));
    // In fewer bytes nearer to the original, beyond both intervals.
    assert!(fitted["model"]["size_bytes"].as_u64() < preset["model"]["size_bytes"].as_u64());
    assert!(ours["high"].as_f64() < theirs["low"].as_f64(), "{ours} {theirs}");
    space.slmops(&["run", "dist/smollm2-0.1.0-phone", "Where is Paris?", "--max-new-tokens", "8"]).success();
}
