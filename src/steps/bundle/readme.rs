//! The `README.md` of a bundle whose manifest gives no text of its own: what it is, what it was measured to do, how to run it.

use std::fmt::Write;

use crate::base::units::show_size;
use crate::bundle::Description;
use crate::bundle::description::Figure;
use crate::steps::Project;

pub const FILE: &str = "README.md";

pub fn write(project: &Project, description: &Description) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = compose(&mut text, project, description);
    text
}

fn compose(out: &mut String, project: &Project, description: &Description) -> std::fmt::Result {
    let Description { device, model, memory, .. } = description;
    writeln!(out, "# {} {} for {}\n", description.name, description.version, device.name)?;
    for text in project.description.iter().chain(&device.description) {
        writeln!(out, "{text}\n")?;
    }
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| device | {} ({}, {}) |", device.name, device.arch, device.runtime)?;
    writeln!(out, "| model | {} parameters, {}, {:.2} bits per weight |", model.parameters, model.file_type, model.bits_per_weight)?;
    writeln!(out, "| memory | {} at {} tokens of context (by calculation) |", show_size(memory.total_bytes()), model.context_length)?;
    if let Some(license) = &project.license {
        writeln!(out, "| licence | {license} |")?;
    }
    results(out, description)?;
    writeln!(out, "\n## Run\n\n    {}\n", command(description))?;
    writeln!(out, "Built by slmops; `slmops-bundle.json` holds these facts for programs.")
}

fn results(out: &mut String, description: &Description) -> std::fmt::Result {
    if description.evaluations.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n## Results\n\n| set | metric | value | 95 % interval |\n|---|---|---|---|")?;
    for (set, metrics) in description.evaluations.iter().flat_map(|evaluation| &evaluation.metrics) {
        for (name, figure) in metrics {
            writeln!(out, "| {set} | {name} | {:.4} | {} |", figure.value, interval(figure))?;
        }
    }
    for (set, count) in description.evaluations.iter().flat_map(|evaluation| &evaluation.in_training) {
        writeln!(out, "\nThe model learned from {count} of the records of `{set}`: figures on it say little about new data.")?;
    }
    let gates: Vec<_> = description.evaluations.iter().flat_map(|evaluation| &evaluation.gates).collect();
    if !gates.is_empty() {
        writeln!(out, "\nGates that it passed:\n")?;
    }
    for gate in gates {
        writeln!(out, "- {} on {}: {} {} (is {:.4})", gate.metric, gate.on, gate.condition, gate.limit, gate.figure.value)?;
    }
    Ok(())
}

fn interval(figure: &Figure) -> String {
    let end = |end: Option<f64>| end.map_or("unknown".to_string(), |end| format!("{end:.4}"));
    match (figure.low, figure.high) {
        (None, None) => "unknown".to_string(),
        (low, high) => format!("{} to {}", end(low), end(high)),
    }
}

fn command(description: &Description) -> String {
    let model = &description.entry.model;
    match description.device.runtime.as_str() {
        "llama.cpp" => format!("llama-cli -m {model} -c {} --temp 0 -p \"…\"", description.model.context_length),
        "transformers" => "python -c 'from transformers import pipeline; print(pipeline(\"text-generation\", \".\")(\"…\"))'".to_string(),
        _ => "slmops run . \"…\"".to_string(),
    }
}
