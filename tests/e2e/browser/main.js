// Runs one scenario on the talk page and prints, as JSON, what there was to see:
//
//   node main.js SCENARIO '{"url": "http://127.0.0.1:8080/", …}'

const { withPage } = require('./page.js');
const scenarios = require('./scenarios.js');

async function main() {
  const [name, given] = process.argv.slice(2);
  const options = JSON.parse(given);
  const shown = await withPage(options, async (page) => {
    const result = await scenarios[name](page, options);
    return { ...result, problems: page.problems };
  });
  console.log(JSON.stringify(shown));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
