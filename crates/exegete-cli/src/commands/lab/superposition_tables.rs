//! Tables of `exegete lab superposition`, for the terminal and as CSV.

use exegete_base::stats::Estimate;
use exegete_lab::superposition::Report;
use exegete_lab::superposition::layers::Case;
use exegete_lab::superposition::phases::Phase;
use exegete_lab::superposition::probe::Probe;
use exegete_lab::superposition::widths::Fit;

/// A number with its interval.
fn told(e: Estimate) -> String {
    // Three digits say nothing of a very small number.
    let is_small = e.value != 0.0 && e.value.abs() < 1e-3;
    let one = |v: f64| if is_small { format!("{v:.1e}") } else { format!("{v:.3}") };
    if e.low.is_finite() { format!("{} [{}, {}]", one(e.value), one(e.low), one(e.high)) } else { one(e.value) }
}

/// The lines for the terminal.
pub(crate) fn text(report: &Report) -> Vec<String> {
    let mut lines = vec![format!("seed {}; intervals are 95 %", report.seed)];
    phases(report, &mut lines);
    dimensions(report, &mut lines);
    probes(report, &mut lines);
    uand(report, &mut lines);
    lines
}

fn phases(report: &Report, lines: &mut Vec<String>) {
    let (found, settings) = (&report.phases, &report.settings);
    let [dropped, own, superposed, other] = found.counts;
    lines.extend([
        String::new(),
        format!("Two features in one dimension: {0} x {0} points, best of {1} models each", settings.grid, settings.restarts),
        format!(
            "  extra feature: not represented {dropped}, own dimension {own}, antipodal superposition {superposed}, other {other}"
        ),
        format!("  phase of smallest expected loss learned: {}, n = {}", told(found.agreement), found.agreement.n),
        format!(
            "  where it is better by a tenth or more:   {}, n = {}",
            told(found.agreement_clear),
            found.agreement_clear.n
        ),
    ]);
}

fn dimensions(report: &Report, lines: &mut Vec<String>) {
    let settings = &report.settings;
    lines.extend([
        String::new(),
        format!("{} features in {} dimensions, one model a row", settings.features, settings.hidden),
        "  1 - S   kept  m/|W|^2  antipodal pairs  share in pairs        D_i near 1/2          D_i near 1".into(),
    ]);
    for level in &report.dimensions {
        lines.push(format!(
            "  {:<6.3} {:>5}  {:>7.3}  {:>15}  {:<20}  {:<20}  {}",
            level.density,
            level.n_represented,
            level.dimensions_per_feature,
            level.n_antipodal_pairs,
            told(level.in_pairs),
            told(level.near_half),
            told(level.near_one)
        ));
    }
}

fn probes(report: &Report, lines: &mut Vec<String>) {
    lines.extend([String::new(), "Where superposition begins in y = W_out ReLU(W_in x + b)".into()]);
    for case in &report.probes {
        let truth = case.truth.as_ref().map_or(String::new(), |truth| format!(" (truth: {truth})"));
        let p = &case.probe;
        lines.push(format!("  {}: {}{truth}, n = {} features", case.name, p.verdict.name(), p.n_features - p.n_silent));
        lines.extend(probed(p).into_iter().map(|line| format!("    {line}")));
        if let Some(before) = &case.untrained {
            lines.push(format!(
                "    before training: {}, alignment {}, capacity hidden {}, output {}",
                before.verdict.name(),
                told(before.alignment),
                told(before.capacity_hidden),
                told(before.capacity_output)
            ));
        }
        if let (Some(loss), Some(linear), Some(naive)) = (case.loss, case.linear_loss, case.naive_loss) {
            let (loss, naive, n) = (told(loss), told(naive), loss.n);
            lines.push(format!(
                "    loss {loss}, one AND per neuron {naive}, best linear map {linear:.3}, n = {n} inputs"
            ));
        }
    }
}

fn probed(p: &Probe) -> [String; 3] {
    [
        format!("alignment with a neuron {}, features per neuron {}", told(p.alignment), told(p.features_per_neuron)),
        format!(
            "capacity hidden {} (random {:.3}), output {} (random {:.3})",
            told(p.capacity_hidden),
            p.capacity_hidden_random,
            told(p.capacity_output),
            p.capacity_output_random
        ),
        format!("|cos| of W_out columns: co-active {}, all {:.3}", told(p.coactive_cosine), p.all_cosine),
    ]
}

fn uand(report: &Report, lines: &mut Vec<String>) {
    for sweep in &report.uand {
        let (inputs, networks) = (sweep.inputs, report.settings.networks);
        lines.extend([
            String::new(),
            format!(
                "Universal AND, {} weights: {} ANDs of {} features, {} on; {networks} networks a width",
                sweep.design.name(),
                sweep.n_pairs,
                inputs.m,
                inputs.active
            ),
            "  classes of pairs alike (none, one, both on)                           | all pairs alike".into(),
            "  neurons  rms error             expected  mse     naive mse  mean |error| | mse        naive mse".into(),
        ]);
        for w in &sweep.widths {
            lines.push(format!(
                "  {:>7}  {:<20}  {:>8.3}  {:.4}  {:>9.4}  {:>12.4} | {:.2e}   {:.2e}",
                w.d,
                told(w.rms),
                w.rms_expected,
                w.mse_balanced.value,
                w.naive_mse_balanced,
                w.mean_abs.value,
                w.mse_natural.value,
                w.naive_mse_natural
            ));
        }
        let fit = |fit: Fit| {
            let expected = fit.expected.map_or(String::new(), |e| format!("expected here {e:.3}, "));
            format!("{} ({expected}for large widths {})", told(fit.exponent), fit.asymptotic)
        };
        let n = sweep.rms_fit.exponent.n;
        lines.push(format!("  exponent of the rms error:  {}, n = {n} networks", fit(sweep.rms_fit)));
        lines.push(format!("  exponent of the mean error: {}", fit(sweep.mean_abs_fit)));
    }
}

/// Every table under its file's name.
pub(crate) fn csv(report: &Report) -> Vec<(&'static str, String)> {
    vec![
        ("phases.csv", phases_csv(report)),
        ("dimensionality.csv", dimensions_csv(report)),
        ("probe.csv", probes_csv(report)),
        ("uand.csv", uand_csv(report)),
    ]
}

fn phases_csv(report: &Report) -> String {
    let name = |phase: Phase| match phase {
        Phase::NotRepresented => "not_represented",
        Phase::OwnDimension => "own_dimension",
        Phase::Superposition => "superposition",
        Phase::Other => "other",
    };
    let mut csv = "density,importance,w0,w1,b0,b1,loss,loss_not_represented,loss_own_dimension,loss_superposition,\
                   phase,predicted,n_models,seed\n"
        .to_owned();
    for c in &report.phases.cells {
        let ([w0, w1], [b0, b1], [dropped, own, both]) = (c.weights, c.biases, c.solutions);
        let (phase, predicted) = (name(c.phase), name(c.predicted));
        csv += &format!("{},{},{w0},{w1},{b0},{b1},{},", c.density, c.importance, c.loss);
        csv += &format!("{dropped},{own},{both},{phase},{predicted},{},{}\n", c.n, report.seed);
    }
    csv
}

fn dimensions_csv(report: &Report) -> String {
    let mut csv =
        "density,feature,dimensionality,dimensions_per_feature,n_represented,n_antipodal_pairs,seed\n".to_owned();
    for level in &report.dimensions {
        let (per, kept, pairs) = (level.dimensions_per_feature, level.n_represented, level.n_antipodal_pairs);
        for (feature, value) in level.dimensionality_F.iter().enumerate() {
            csv += &format!("{},{feature},{value},{per},{kept},{pairs},{}\n", level.density, report.seed);
        }
    }
    csv
}

fn probes_csv(report: &Report) -> String {
    let columns = |name: &str| format!("{name},{name}_low,{name}_high");
    let mut csv = format!(
        "layer,truth,verdict,n_features,n_silent,n_neurons,{},{},{},all_cosine,{},{},capacity_hidden_random,\
         capacity_output_random,loss,linear_loss,naive_loss,seed\n",
        columns("alignment"),
        columns("features_per_neuron"),
        columns("coactive_cosine"),
        columns("capacity_hidden"),
        columns("capacity_output")
    );
    let three = |e: Estimate| format!("{},{},{}", e.value, e.low, e.high);
    let maybe = |e: Option<Estimate>| e.map_or(String::new(), |e| e.value.to_string());
    for Case { name, truth, probe: p, loss, linear_loss, naive_loss, .. } in &report.probes {
        csv += &format!("\"{name}\",{},{},", truth.as_deref().unwrap_or(""), p.verdict.name());
        csv += &format!("{},{},{},{},", p.n_features, p.n_silent, p.n_neurons, three(p.alignment));
        csv += &format!("{},{},{},", three(p.features_per_neuron), three(p.coactive_cosine), p.all_cosine);
        csv += &format!("{},{},", three(p.capacity_hidden), three(p.capacity_output));
        csv += &format!("{},{},", p.capacity_hidden_random, p.capacity_output_random);
        let linear = linear_loss.map_or(String::new(), |loss| loss.to_string());
        csv += &format!("{},{linear},{},{}\n", maybe(*loss), maybe(*naive_loss), report.seed);
    }
    csv
}

fn uand_csv(report: &Report) -> String {
    let mut csv = "design,neurons,n_ands,n_networks,rms,rms_low,rms_high,rms_expected,mean_abs,mse_none_on,mse_one_on,\
                   mse_both_on,mse_balanced,naive_mse_balanced,mse_natural,naive_mse_natural,seed\n"
        .to_owned();
    for sweep in &report.uand {
        for w in &sweep.widths {
            let [none, one, both] = w.mse;
            csv += &format!("{},{},{},{},", sweep.design.name(), w.d, sweep.n_pairs, w.rms.n);
            csv += &format!("{},{},{},{},", w.rms.value, w.rms.low, w.rms.high, w.rms_expected);
            csv += &format!("{},{none},{one},{both},{},", w.mean_abs.value, w.mse_balanced.value);
            csv +=
                &format!("{},{},{},{}\n", w.naive_mse_balanced, w.mse_natural.value, w.naive_mse_natural, report.seed);
        }
    }
    csv
}
