'use strict';
const all = (selector, from) => [...(from || document).querySelectorAll(selector)];
const large = document.getElementById('large');
const hidden = document.getElementById('hidden');
let shown; /* the button whose picture is large */

const show = (button) => {
    const own = button.querySelector('img');
    const reference = document.getElementById(button.dataset.reference).querySelector('img');
    const [left, right] = all('.pair img', large);
    shown = button;
    left.src = own.src;
    right.src = reference.src;
    large.querySelector('#caption').textContent = own.alt;
    large.querySelector('#figures').textContent = button.dataset.figures;
    large.querySelector('code').textContent = button.dataset.command;
    large.querySelector('#copy').textContent = 'copy command';
    if (!large.open) large.showModal();
};

const move = (by) => {
    const visible = all('button.shot').filter((b) => b.offsetParent);
    const next = visible[visible.indexOf(shown) + by];
    if (next) show(next);
};

const copy = async () => {
    const button = large.querySelector('#copy');
    getSelection().selectAllChildren(large.querySelector('code'));
    try {
        await navigator.clipboard.writeText(shown.dataset.command);
        button.textContent = 'copied';
    } catch (e) {
        button.textContent = document.execCommand('copy') ? 'copied' : 'selected: copy it by hand';
    }
};

/* Each box that is not checked hides what carries its data attribute; lines go over the points that are left. */
const filter = () => {
    const rules = all('input[data-key]').filter((box) => !box.checked)
        .map((box) => `[data-${box.dataset.key}='${box.value}']`);
    hidden.textContent = rules.length ? `${rules.join(',')} { display: none !important; }` : '';
    for (const group of all('svg g')) {
        const points = all('circle', group).filter((c) => getComputedStyle(c).display !== 'none');
        group.querySelector('polyline').setAttribute('points',
            points.map((c) => `${c.getAttribute('cx')},${c.getAttribute('cy')}`).join(' '));
    }
};

for (const button of all('button.shot')) button.addEventListener('click', () => show(button));
for (const box of all('input[data-key]')) box.addEventListener('change', filter);
large.querySelector('#close').addEventListener('click', () => large.close());
large.querySelector('#before').addEventListener('click', () => move(-1));
large.querySelector('#after').addEventListener('click', () => move(1));
large.querySelector('#copy').addEventListener('click', copy);
large.addEventListener('click', (e) => { if (e.target === large) large.close(); });
large.addEventListener('keydown', (e) => {
    if (e.key === 'ArrowLeft') move(-1);
    if (e.key === 'ArrowRight') move(1);
});
filter(); /* a reload keeps the boxes as they were */
