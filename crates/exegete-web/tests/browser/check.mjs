// Drives Chromium over a run that is served. Called by the test `browser`, with what it needs in the environment:
// ADDRESS of the server, MODULES with playwright-core and axe-core, CHROMIUM, PHASE, and SHOTS for pictures, if they are wanted.
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const { ADDRESS, MODULES, CHROMIUM, PHASE, SHOTS } = process.env;
const require = createRequire(join(MODULES, "x.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const faults = [];
let where = "";
const check = (isFine, words) => {
  if (!isFine) faults.push(`${where}: ${words}`);
};
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });

// A page whose every complaint is a fault.
const open = async (width, scheme, more) => {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: scheme, ...more });
  const page = await context.newPage();
  page.setDefaultTimeout(15000);
  page.on("pageerror", (error) => check(false, `a script failed: ${error.message}`));
  page.on("dialog", (dialog) => {
    check(false, `a dialog opened: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("console", (message) => {
    if (message.type() === "error" && !page.expected?.test(message.text())) check(false, `console: ${message.text()}`);
  });
  page.on("request", (request) => check(request.url().startsWith(ADDRESS) || request.url().startsWith("data:"), `it asks for ${request.url()}`));
  return page;
};

const go = async (page, path) => {
  where = `${path} at ${page.viewportSize().width}`;
  const answer = await page.goto(ADDRESS + path, { waitUntil: "load" });
  return answer?.status();
};

const shot = async (page, name) => {
  if (!SHOTS) return;
  mkdirSync(SHOTS, { recursive: true });
  await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: false });
};

// The page fits its width, nothing of it was executed, and axe finds nothing serious.
const inspect = async (page, withAxe) => {
  const [inner, scroll, hacked, wide] = await page.evaluate(() => [
    innerWidth,
    document.scrollingElement.scrollWidth,
    Boolean(window.hacked),
    [...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1).slice(0, 3).map((e) => e.outerHTML.slice(0, 120)),
  ]);
  check(scroll <= inner, `it scrolls sideways: ${scroll} of ${inner}, by ${JSON.stringify(wide)}`);
  check(!hacked, "something of the corpus was executed");
  check((await page.locator("main h1").count()) === 1, "there is not one heading");
  if (!withAxe) return;
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document));
  for (const violation of violations.filter((v) => ["serious", "critical"].includes(v.impact))) {
    const nodes = violation.nodes.slice(0, 2).map((node) => `${node.html.slice(0, 160)} (${node.failureSummary.replaceAll("\n", " ").slice(0, 200)})`);
    check(false, `axe: ${violation.id}: ${nodes.join("; ")}`);
  }
};

const PAGES = [
  ["home", "/"],
  ["search", "/?q=the&show=alive&sort=distinct&low=0.0001"],
  ["nothing", "/?q=nosuchword"],
  ["latent", "/latent/3"],
  ["intervals", "/latent/6?view=intervals"],
  ["quantiles", "/latent/6?view=quantiles"],
  ["abstained", "/latent/45"],
  ["dead", "/latent/179"],
  ["compare", "/compare?left=3&right=14"],
  ["compare-empty", "/compare"],
  ["map", "/map?column=max"],
  ["jobs", "/jobs"],
  ["rate", "/rate?seed=2"],
  ["try", "/try?text=the%20apple%20and"],
  ["training", "/training"],
];

const looks = async () => {
  for (const width of [1280, 390]) {
    for (const scheme of ["light", "dark"]) {
      const page = await open(width, scheme);
      for (const [name, path] of PAGES) {
        check((await go(page, path)) === 200, "it is not answered");
        if (name === "map") await page.locator("#map-point", { hasText: "latents" }).waitFor();
        if (name === "try") await page.locator(".tried-latents").waitFor();
        await inspect(page, true);
        await shot(page, `${name}-${width}-${scheme}`);
      }
      const whole = await page.goto(`${ADDRESS}/latent/3`).then(() => page.locator("a.whole").first().getAttribute("href"));
      await go(page, whole);
      await inspect(page, true);
      page.expected = /404/;
      check((await go(page, "/nowhere")) === 404, "it is there");
      await inspect(page, false);
      await page.context().close();
    }
  }
};

const keys = async () => {
  const page = await open(1280, "light");
  const at = () => new URL(page.url());
  await go(page, "/latent/3?view=quantiles");
  const press = async (key, to) => {
    where = `key ${key}`;
    if (!to) return page.keyboard.press(key);
    await Promise.all([page.waitForURL(to), page.keyboard.press(key)]);
  };
  await press("j", "**/latent/4?view=quantiles");
  await press("k", "**/latent/3?view=quantiles");
  await press("ArrowRight", "**/latent/4?view=quantiles");
  await press("]");
  const first = await page.evaluate(() => document.activeElement.id);
  await press("]");
  const second = await page.evaluate(() => document.activeElement.id);
  await press("[");
  check(first === "group-0" && second === "group-1", `levels: ${first}, ${second}`);
  check((await page.evaluate(() => document.activeElement.id)) === "group-0", "back to the first level");
  await press("?");
  check(await page.locator("#help").isVisible(), "the help is not there");
  await shot(page, "help");
  await press("Escape");
  check(!(await page.locator("#help").isVisible()), "the help stays");
  await press("n");
  check((await page.evaluate(() => document.activeElement.id)) === "note", "no field for a note");
  await page.keyboard.type("jjj?");
  check((await page.locator("#note").inputValue()) === "jjj?", "keys are not text in a field");
  await press("Escape");
  await press("g");
  await press("m", "**/map");
  await press("g");
  await press("h", `${ADDRESS}/`);
  await press("/");
  check((await page.evaluate(() => document.activeElement.id)) === "search", "no search");
  await page.keyboard.type("royal");
  await Promise.all([page.waitForURL(/q=royal/), page.keyboard.press("Enter")]);
  check((await page.locator("table.latents tbody tr").count()) > 10, "the search finds nothing");
  check(!at().search.includes("low="), `what is empty is not said: ${at().search}`);
  await page.locator("select[name=sort]").selectOption("max");
  await page.waitForURL(/sort=max/);
  where = "sorting";
  check((await page.locator("th[aria-sort=descending]").innerText()).startsWith("Max"), "not sorted");
  check(at().searchParams.get("q") === "royal", "the search is lost");
  await tokens(page);
  await go(page, "/?sort=latent");
  await press("j", /page=2/);
  await press("Tab");
  check(await page.locator(".skip").evaluate((e) => e === document.activeElement), "no way past the head");
  await page.context().close();
};

// What is shown of the token that has the focus: its text, its activation, the line that tells it, and what is announced.
const token = (page) =>
  page.evaluate(() => {
    const at = document.activeElement;
    const line = getComputedStyle(at, "::after").content;
    return { text: at.textContent, value: at.dataset.value, line, said: document.getElementById("announce")?.textContent };
  });
const isTold = (at) => /^[0-9.e-]+$/.test(at.value) && at.line.startsWith(`"activation ${at.value}"`);

const tokens = async (page) => {
  await go(page, "/latent/6");
  where = "tokens";
  const example = page.locator(".example:has([data-value] ~ [data-value] ~ [data-value])").first();
  const values = await example.locator("[data-value]").evaluateAll((all) => all.map((one) => one.dataset.value));
  check(values.length > 2, `too few tokens fire: ${values}`);
  const stops = await page.locator(".example .text [tabindex='0']").count();
  check(stops === (await page.locator(".example .text:has([data-value])").count()), `not one stop a text: ${stops}`);
  // From the link of an example, the way back leads to the token that was drawn.
  await example.locator("a.whole").focus();
  await page.keyboard.press("Shift+Tab");
  const own = await token(page);
  check(await page.evaluate(() => document.activeElement.matches(".own")), "the tabulator does not lead to the drawn token");
  check(isTold(own) && own.said === `${own.text}: activation ${own.value}`, `the drawn token is told as ${JSON.stringify(own)}`);
  await shot(page, "token");
  await page.keyboard.press("Home");
  const seen = [];
  for (const _ of values) {
    const at = await token(page);
    check(isTold(at) && at.said.endsWith(at.value), `a token is told as ${JSON.stringify(at)}`);
    seen.push(at.value);
    await page.keyboard.press("ArrowRight");
  }
  check(seen.join() === values.join(), `arrow keys go over ${seen}, not ${values}`);
  check(page.url().includes("/latent/6"), "an arrow key left the page");
  await page.keyboard.press("ArrowLeft");
  check((await token(page)).value === values.at(-2), "the way back");
  await page.keyboard.press("Escape");
  check((await token(page)).value === undefined, "a token keeps the focus");
};

// On a small screen, a touch on a token shows its activation, and nothing else moves.
const touch = async () => {
  const page = await open(390, "light", { hasTouch: true });
  await go(page, "/latent/6");
  const height = () => page.evaluate(() => document.scrollingElement.scrollHeight);
  const before = await height();
  await page.locator(".example .own").nth(1).tap();
  const at = await token(page);
  check(isTold(at), `a touched token is told as ${JSON.stringify(at)}`);
  check((await height()) === before, "the page has another height");
  await inspect(page, false);
  await shot(page, "token-touched");
  await page.context().close();
};

// Two dictionaries side by side, each in a column in which its numbers can be read.
const beside = async () => {
  for (const width of [1280, 390]) {
    for (const scheme of ["light", "dark"]) {
      const page = await open(width, scheme);
      check((await go(page, "/compare?dictionary=wide&other=nar%20row")) === 200, "it is not answered");
      await inspect(page, true);
      const sides = await page.locator(".sides > section").evaluateAll((all) => all.map((side) => side.clientWidth));
      check(sides.length === 2 && sides.every((side) => side > 340), `columns of ${sides}`);
      await shot(page, `beside-${width}-${scheme}`);
      await go(page, "/compare?dictionary=wide&left=3&other=nar%20row&right=5");
      await inspect(page, true);
      await page.locator(".sides .own").first().focus();
      check(isTold(await token(page)), `a token is told as ${JSON.stringify(await token(page))}`);
      await shot(page, `beside-latents-${width}-${scheme}`);
      await page.context().close();
    }
  }
};

// Pages from a file run no script.
const exported = async () => {
  for (const width of [1280, 390]) {
    for (const scheme of ["light", "dark"]) {
      const page = await open(width, scheme);
      await go(page, "/latent/6.html");
      const text = page.locator(".text:has([data-value] ~ [data-value] ~ [data-value])").first();
      const values = await text.locator("[data-value]").evaluateAll((all) => all.map((one) => one.dataset.value));
      await text.locator("[data-value]").first().focus();
      for (const value of values) {
        const at = await token(page);
        check(at.value === value && isTold(at), `a token is told as ${JSON.stringify(at)}, not ${value}`);
        await page.keyboard.press("Tab");
      }
      await text.locator(".own").hover();
      await shot(page, `exported-${width}-${scheme}`);
      const [inner, scroll] = await page.evaluate(() => [innerWidth, document.scrollingElement.scrollWidth]);
      check(scroll <= inner, `it scrolls sideways: ${scroll} of ${inner}`);
      await page.context().close();
    }
  }
};

const actions = async () => {
  const page = await open(1280, "light");
  await go(page, "/latent/6");
  const box = page.locator(".example").first();
  const before = await box.locator("p.text").innerText();
  await page.keyboard.press("x");
  await box.locator("a.whole", { hasText: "only the piece" }).waitFor();
  const after = await box.locator("p.text").innerText();
  check(after.length > before.length, "the whole text is no longer than its piece");
  await shot(page, "whole");
  await box.locator("a.whole").click();
  check((await box.locator("p.text").innerText()) === before, "the piece does not come back");
  check((await page.locator(".example .own").first().getAttribute("data-value")).match(/^[0-9.]+$/), "no exact value on a token");
  const scale = page.locator(".scales input").first();
  check(await scale.isVisible(), "no scale to pick");
  await scale.fill("24");
  const told = await page.locator(".scales output").first().innerText();
  check(told.startsWith("240") && told.includes("“") && told.includes("entropy"), `the scale tells ${told}`);
  check((await page.locator("li.picked").count()) === 1, "no text is picked");
  await Promise.all([page.waitForLoadState("load"), page.locator("li.picked button").click()]);
  await page.locator("div.label").waitFor();
  await shot(page, "label");
  await page.keyboard.press("b");
  await page.locator("#bookmark[aria-pressed=true]").waitFor();
  await page.keyboard.press("n");
  await page.keyboard.type("A note <script>window.hacked=1</script> \u202eabc");
  await page.locator(".new-note button").click();
  await page.locator(".note-of").waitFor();
  await inspect(page, true);
  await page.locator("form.try textarea").fill("the apple an ant");
  await page.locator("form.try button").click();
  await page.locator(".tried .text span.a3").first().waitFor();
  await page.locator(".tried [data-value]").first().focus();
  check(isTold(await token(page)), `a tried token is told as ${JSON.stringify(await token(page))}`);
  check((await page.locator(".tried .text").innerText()).includes("apple"), "the text is not told");
  await go(page, "/try");
  await page.locator("textarea").fill("one two");
  await page.locator("form.try button").click();
  await page.locator(".tried-latents").waitFor();
  await page.locator("select[name=order]").selectOption("effect");
  await page.waitForURL(/order=effect/);
  await go(page, "/map");
  await page.locator("#map-point", { hasText: "latents" }).waitFor();
  await page.locator("canvas").first().focus();
  await page.keyboard.press("ArrowRight");
  await page.locator("#map-point", { hasText: "Latent" }).waitFor();
  await shot(page, "map-chosen");
  await Promise.all([page.waitForURL(/latent\/\d+/), page.keyboard.press("Enter")]);
  await go(page, "/rate?seed=5");
  await Promise.all([page.waitForLoadState("load"), page.keyboard.press("4")]);
  await page.locator("p.note", { hasText: "1 of" }).waitFor();
  await go(page, "/jobs");
  const done = () => page.locator("progress").first().getAttribute("value").then(Number);
  const then = await done();
  await page.waitForFunction((then) => Number(document.querySelector("progress").value) > then, then);
  await page.locator("form[action='/api/job/live/cancel'] button").click();
  await page.locator(".status", { hasText: "Stopp" }).first().waitFor();
  await page.locator(".status", { hasText: "the same command goes on" }).first().waitFor();
  await page.context().close();
};

// After a restart of the server.
const kept = async () => {
  const page = await open(390, "dark");
  await go(page, "/latent/6");
  check((await page.locator(".note-of").innerText()).includes("A note <script>"), "the note is gone");
  check((await page.locator("#bookmark").getAttribute("aria-pressed")) === "true", "the bookmark is gone");
  check(await page.locator("div.label").isVisible(), "the label is gone");
  await inspect(page, true);
  await go(page, "/?show=bookmarked");
  check((await page.locator("table.latents tbody tr").count()) === 1, "the bookmarked are not one");
  await go(page, "/latent/6");
  await page.locator(".note-of button").click();
  await page.locator(".note-of").waitFor({ state: "detached" });
  await page.context().close();
};

const hostile = async () => {
  for (const width of [1280, 390]) {
    const page = await open(width, "light");
    for (const path of ["/", "/latent/0", "/latent/3", "/latent/7?view=quantiles", "/compare?left=3&right=4", "/rate", "/jobs", "/map", "/?q=%3Cscript%3E"]) {
      check((await go(page, path)) === 200, "it is not answered");
      await inspect(page, width === 1280);
      await shot(page, `hostile${path.replaceAll(/[^a-z0-9]/g, "-").slice(0, 24)}-${width}`);
    }
    await go(page, "/latent/3");
    await page.keyboard.press("x");
    await page.locator("a.whole", { hasText: "only the piece" }).waitFor();
    await inspect(page, false);
    await page.context().close();
  }
};

const phases = { looks, keys, touch, actions, beside, exported, kept, hostile };
try {
  await phases[PHASE]();
} catch (error) {
  faults.push(`${where}: ${error.message}`);
}
await browser.close();
for (const fault of faults) console.log(fault);
process.exit(faults.length ? 1 : 0);
