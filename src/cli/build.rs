//! `slmops build`: runs what is not cached and puts the bundles into `dist/`.

use std::path::PathBuf;
use std::sync::Arc;

use super::project::{Load, Project, cache_folder, find_manifest, jobs, plan_options, shown};
use super::shell::{Shell, Stop};
use crate::base::{Cancel, Exit, units};
use crate::deploy::{self, Dist, Published};
use crate::engine::{self, BuildResult, CacheUse, Engine, EventSink, OnFailure, Options};
use crate::plan::{self, Selection};
use crate::report::{Colors, JsonLines, Live, Plain, Quiet, Table};
use crate::source::Fetch;
use crate::steps::Failure;

/// Build: run what is not cached, and put one bundle for each device into dist/
#[derive(Debug, clap::Args)]
pub struct Build {
    /// Steps, variants or bundles [default: all bundles]
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    #[command(flatten)]
    how: How,
    /// Fail if slmops.lock does not fit the manifest
    #[arg(long)]
    locked: bool,
    /// Fetch nothing: fail if a pinned source is not on this machine
    #[arg(long)]
    offline: bool,
    /// Run every step, whatever the cache holds, and compare the results with it
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    load: Load,
}

/// What commands that run steps have in common.
#[derive(Clone, Debug, clap::Args)]
pub struct How {
    /// Threads that all running steps share [default: as many as the machine has]
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// After a failure, build all that does not need the failed step
    #[arg(short, long)]
    keep_going: bool,
}

impl How {
    pub fn options(&self, project: &Project, cache: CacheUse) -> Result<Options, Stop> {
        let cancel = Cancel::default();
        engine::cancel_on_signal(&cancel)?;
        let on_failure = if self.keep_going { OnFailure::KeepGoing } else { OnFailure::Stop };
        Ok(Options { jobs: jobs(self.jobs)?, on_failure, cache, cancel, ..project.options() })
    }
}

impl Build {
    pub fn run(self, shell: &Shell) -> Result<Exit, Stop> {
        if self.locked {
            let root = find_manifest(&shell.directory)?;
            let cache = cache_folder(shell, &self.load, &root)?;
            plan::check_locked(&root, &plan_options(shell, &self.load, &cache, Fetch::Pinned))?;
        }
        let fetch = if self.offline { Fetch::Never } else { Fetch::Pinned };
        let project = Project::load_with(shell, &self.load, fetch)?;
        project.warn(shell);
        let targets: Vec<&str> = self.targets.iter().map(String::as_str).collect();
        let selection = project.plan.select(&targets)?;
        let deliveries = Deliveries::new(&project, &selection)?;
        let events = listener(shell, &project);
        let engine = project.engine(events.clone())?;
        let cache = if self.no_cache { CacheUse::Rebuild } else { CacheUse::Reuse };
        let options = self.how.options(&project, cache)?;
        let result = engine.build(&project.plan, &selection.targets, &options);
        let published = deliveries.publish(shell, &project, &engine, &result, &selection, &options)?;
        if self.no_cache {
            show_comparison(shell, &result);
        }
        shell.written(events.trouble().map_or(Ok(()), Err))?;
        let differs = if result.differences.is_empty() { Exit::Done } else { Exit::Failed };
        Ok(result.exit().worse(differs).worse(published))
    }
}

/// Where this build delivers. What is wrong there is found before anything runs.
struct Deliveries {
    dist: PathBuf,
    places: Vec<deploy::Place>,
}

impl Deliveries {
    fn new(project: &Project, selection: &Selection) -> Result<Deliveries, Stop> {
        let dist = deploy::dist_folder(&project.root);
        let places = deploy::places(&project.plan).map_err(Failure::from)?;
        let names: Vec<&str> =
            places.iter().filter(|place| selection.needed.contains(&place.node)).map(|place| place.name.as_str()).collect();
        if !names.is_empty() {
            Dist::check(&dist, names).map_err(Failure::from)?;
        }
        Ok(Deliveries { dist, places })
    }

    /// Delivers, shows what was delivered, and says what could not be.
    fn publish(
        &self,
        shell: &Shell,
        project: &Project,
        engine: &Engine,
        result: &BuildResult,
        selection: &Selection,
        options: &Options,
    ) -> Result<Exit, Stop> {
        let Deliveries { dist, places } = self;
        let say = |text: &str| shell.say(text);
        let order = deploy::Order { plan: &project.plan, engine, options, places, selection, dist, say: &say };
        let published = deploy::publish(&order, result);
        show(shell, &published.bundles)?;
        published.failures.iter().for_each(|failure| shell.failure(failure));
        Ok(published.failures.iter().fold(Exit::Done, |worst, failure| worst.worse(failure.exit)))
    }
}

/// Who hears what the build has to say.
pub fn listener(shell: &Shell, project: &Project) -> Arc<dyn EventSink> {
    let plan = project.plan.clone();
    match (shell.json, shell.live) {
        (true, _) => Arc::new(JsonLines::new(plan)),
        (false, true) => Arc::new(Live::new(plan, if shell.color { Colors::Yes } else { Colors::No })),
        (false, false) => Arc::new(Plain::new(plan, if shell.quiet { Quiet::Yes } else { Quiet::No })),
    }
}

/// The table of bundles: data, so it goes to stdout.
fn show(shell: &Shell, bundles: &[Published]) -> Result<(), Stop> {
    if bundles.is_empty() {
        return Ok(());
    }
    if shell.json {
        let list: Vec<_> = bundles.iter().map(|bundle| bundle.to_json()).collect();
        return shell.print(serde_json::json!({"event": "bundles", "bundles": list}).to_string());
    }
    let mut table = Table::new(["bundle", "device", "model", "size", "gates", "digest", "path"]).right(&[3]);
    for bundle in bundles {
        let description = &bundle.summary.description;
        table.row([
            bundle.step.clone(),
            description.device.name.clone(),
            description.model.file_type.clone(),
            units::show_size(bundle.summary.size_bytes),
            bundle.gates(),
            bundle.summary.digest.chars().take(19).collect(),
            shown(&bundle.path, &shell.directory),
        ]);
    }
    shell.say("");
    shell.print(table.to_string())
}

fn show_comparison(shell: &Shell, result: &BuildResult) {
    match result.differences.len() {
        0 => shell.say("every result that the cache holds came out the same, bit for bit"),
        n => shell.say(format!("{n} results came out otherwise than the cache holds them")),
    }
}
