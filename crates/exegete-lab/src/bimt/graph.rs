//! A network as a weighted graph of its neurons, and how modular that graph is.
//!
//! Newman's modularity of a partition: `Q = sum_c [ w_c / m - (s_c / 2m)^2 ]`, with `m` the sum of all edge weights,
//! `w_c` of those inside community `c`, and `s_c` the sum of its nodes' strengths (Newman 2004, for weighted graphs).
//! A network's Q is the largest that Louvain's method finds (Blondel et al. 2008) from a fixed set of orders.
//!
//! Q knows nothing of places: a swap leaves it exactly as it is. What swaps and locality do for the eye is measured by
//! [`super::cost::mean_length`].

use std::collections::HashSet;

use exegete_base::sampling::pair_hash;

use super::net::Net;
use super::twister::Twister;

/// Edges below this share of the network's largest weight are left out.
pub const EDGE_SHARE: f64 = 0.01;
/// Orders of nodes from which communities are looked for.
const ORDERS: u64 = 10;

/// An undirected graph with weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    n_nodes: usize,
    edges: Vec<(usize, usize, f64)>,
}

/// The best partition found.
#[derive(Debug, Clone, PartialEq)]
pub struct Partition {
    /// Newman's Q; 0 for a graph without edges.
    pub q: f64,
    /// Community of each node.
    pub community: Vec<usize>,
    /// Communities that have an edge.
    pub n_communities: usize,
}

impl Graph {
    /// A graph of given edges (node, node, weight). Weights below [`EDGE_SHARE`] of the largest are left out.
    pub fn new(n_nodes: usize, edges: impl IntoIterator<Item = (usize, usize, f64)>) -> Self {
        let mut edges: Vec<_> = edges.into_iter().map(|(a, b, w)| (a, b, w.abs())).collect();
        let largest = edges.iter().fold(0.0, |most, e| f64::max(most, e.2));
        edges.retain(|e| e.2 > EDGE_SHARE * largest);
        Self { n_nodes, edges }
    }

    /// The graph of a network: all neurons layer after layer, inputs first, weights by magnitude.
    pub fn of_net(net: &Net) -> Self {
        let weights: Vec<Vec<f32>> = (0..net.depth()).map(|layer| net.weights(layer).to_vec()).collect();
        Self::of_layers(net.shape(), &weights)
    }

    /// The control of [`Graph::of_net`]: its edges rewired at random, each neuron keeping its number of edges below and
    /// above. Two edges of a layer exchange their upper ends, ten times as often as there are edges.
    ///
    /// A plain shuffle of the weights would cut a sparse network into pieces, which are modular for no good reason.
    pub fn rewired(net: &Net, seed: u32) -> Self {
        let mut graph = Self::of_net(net);
        let mut twister = Twister::new(seed);
        let mut first = 0;
        for layer in 0..net.depth() {
            let next = first + net.shape()[layer];
            let mut of_layer: Vec<_> = graph.edges.iter_mut().filter(|e| (first..next).contains(&e.0)).collect();
            let mut is_there: HashSet<(usize, usize)> = of_layer.iter().map(|e| (e.0, e.1)).collect();
            let n = of_layer.len();
            for _ in 0..10 * n {
                let mut pick = || ((u64::from(twister.bits()) * n as u64) >> 32) as usize;
                let (i, j) = (pick(), pick());
                let ((a, b), (c, d)) = ((of_layer[i].0, of_layer[i].1), (of_layer[j].0, of_layer[j].1));
                if is_there.contains(&(a, d)) || is_there.contains(&(c, b)) {
                    continue;
                }
                is_there.remove(&(a, b));
                is_there.remove(&(c, d));
                is_there.extend([(a, d), (c, b)]);
                (of_layer[i].1, of_layer[j].1) = (d, b);
            }
            first = next;
        }
        graph
    }

    fn of_layers(shape: &[usize], weights: &[Vec<f32>]) -> Self {
        let (mut edges, mut first) = (Vec::new(), 0);
        for (pair, weights) in shape.windows(2).zip(weights) {
            let next = first + pair[0];
            for (idx, weight) in weights.iter().enumerate() {
                edges.push((first + idx % pair[0], next + idx / pair[0], f64::from(*weight)));
            }
            first = next;
        }
        Self::new(shape.iter().sum(), edges)
    }

    /// The edges: two nodes (in a network the lower one first) and the weight's magnitude.
    pub fn edges(&self) -> &[(usize, usize, f64)] {
        &self.edges
    }

    /// Q of a partition, straight from its definition.
    pub fn modularity(&self, community: &[usize]) -> f64 {
        let total: f64 = self.edges.iter().map(|e| e.2).sum();
        let n = community.iter().max().map_or(0, |c| c + 1);
        let (mut inside, mut strength) = (vec![0.0; n], vec![0.0; n]);
        for &(a, b, weight) in &self.edges {
            strength[community[a]] += weight;
            strength[community[b]] += weight;
            if community[a] == community[b] {
                inside[community[a]] += weight;
            }
        }
        if total == 0.0 {
            return 0.0;
        }
        inside.iter().zip(strength).map(|(w, s)| w / total - (s / (2.0 * total)).powi(2)).sum()
    }

    /// The best of the partitions that Louvain's method finds from ten orders of the nodes: their own, and nine by hash.
    pub fn partition(&self) -> Partition {
        let mut best: Option<Partition> = None;
        for order in 0..ORDERS {
            let community = self.louvain(order);
            let q = self.modularity(&community);
            if best.as_ref().is_none_or(|b| q > b.q + 1e-12) {
                let mut used: Vec<usize> = self.edges.iter().map(|e| community[e.0]).collect();
                used.extend(self.edges.iter().map(|e| community[e.1]));
                used.sort_unstable();
                used.dedup();
                best = Some(Partition { q, n_communities: used.len(), community });
            }
        }
        best.unwrap_or(Partition { q: 0.0, community: Vec::new(), n_communities: 0 })
    }

    fn louvain(&self, order: u64) -> Vec<usize> {
        let mut community: Vec<usize> = (0..self.n_nodes).collect();
        // Between communities, row by row; the diagonal holds twice what lies inside.
        let mut links = vec![vec![0.0; self.n_nodes]; self.n_nodes];
        for &(a, b, weight) in &self.edges {
            links[a][b] += weight;
            links[b][a] += weight;
        }
        loop {
            let moved = local_moves(&links, order);
            let n = moved.iter().max().map_or(0, |c| c + 1);
            if n == links.len() {
                return community;
            }
            community.iter_mut().for_each(|c| *c = moved[*c]);
            let mut joined = vec![vec![0.0; n]; n];
            for (a, row) in links.iter().enumerate() {
                row.iter().enumerate().for_each(|(b, weight)| joined[moved[a]][moved[b]] += weight);
            }
            links = joined;
        }
    }
}

/// Moves nodes to the neighbouring community that raises Q most until none does; communities are numbered from 0.
fn local_moves(links: &[Vec<f64>], order: u64) -> Vec<usize> {
    let n = links.len();
    let strength: Vec<f64> = links.iter().map(|row| row.iter().sum()).collect();
    let total: f64 = strength.iter().sum();
    let mut visits: Vec<usize> = (0..n).collect();
    if order > 0 {
        visits.sort_by_key(|&node| pair_hash(order, node as u64, n as u64));
    }
    let (mut community, mut held): (Vec<usize>, Vec<f64>) = ((0..n).collect(), strength.clone());
    let mut is_moving = total > 0.0;
    while is_moving {
        is_moving = false;
        for &node in &visits {
            let home = community[node];
            held[home] -= strength[node];
            let mut to = vec![0.0; n];
            (0..n).filter(|&other| other != node).for_each(|other| to[community[other]] += links[node][other]);
            let gain = |c: usize| to[c] - strength[node] * held[c] / total;
            // Only a move that is worth more than rounding counts, so that the loop ends.
            let mut best = (gain(home) + 1e-12 * total, home);
            for c in (0..n).filter(|&c| to[c] > 0.0) {
                if gain(c) > best.0 {
                    best = (gain(c), c);
                }
            }
            held[best.1] += strength[node];
            is_moving |= best.1 != home;
            community[node] = best.1;
        }
    }
    let mut names = vec![usize::MAX; n];
    let mut next = 0;
    for c in &mut community {
        if names[*c] == usize::MAX {
            names[*c] = next;
            next += 1;
        }
        *c = names[*c];
    }
    community
}
