"""What runs in browsers and in Node.js: draw.mjs, the draw in JavaScript, and pages that draw."""
